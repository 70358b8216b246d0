"""Health figures have their known values; collapsed outputs are reported and healthy ones are not."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robossl.measure.collapse import (
    LOW_CHECKS,
    CollapseMonitor,
    alignment,
    effective_rank,
    std_normalised,
    uniformity,
)

SIZES = st.tuples(st.integers(16, 96), st.integers(8, 128), st.integers(0, 2**31))
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float64])


def normal(b, d, seed=0):
    return torch.randn(b, d, generator=torch.Generator().manual_seed(seed))


def test_std_of_even_directions_is_one_over_root_d():
    assert std_normalised(normal(20000, 64)).item() == pytest.approx(1 / math.sqrt(64), rel=0.01)
    assert std_normalised(torch.ones(32, 64)).item() < 1e-7


@pytest.mark.parametrize("k", [1, 3, 8])
def test_effective_rank_of_k_equal_directions_is_k(k):
    basis = torch.linalg.qr(normal(16, 16))[0][:k]
    z = torch.cat([basis, -basis]) + 5.0  # centred, k equal singular values; the offset must not count
    assert effective_rank(z).item() == pytest.approx(k, rel=1e-3)


def test_effective_rank_of_a_constant_is_one():
    assert effective_rank(torch.full((64, 32), 0.3)).item() == pytest.approx(1.0, abs=1e-3)


def test_alignment_and_uniformity_are_the_formulas_of_their_paper():
    z0, z1 = normal(12, 5, 1).double(), normal(12, 5, 2).double()
    u0 = [row / math.sqrt(sum(x * x for x in row)) for row in z0]
    u1 = [row / math.sqrt(sum(x * x for x in row)) for row in z1]
    expected = sum(float(((a - b) ** 2).sum()) for a, b in zip(u0, u1, strict=True)) / 12
    assert alignment(z0, z1).item() == pytest.approx(expected, abs=1e-12)
    pairs = [math.exp(-2 * float(((u0[i] - u0[j]) ** 2).sum())) for i in range(12) for j in range(i)]
    assert uniformity(z0).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-12)
    assert alignment(z0, 3 * z0).item() == pytest.approx(0, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(size=SIZES, dtype=DTYPES)
def test_healthy_outputs_are_never_reported(size, dtype):
    b, d, seed = size
    monitor, z = CollapseMonitor(), normal(b, d, seed)
    views = (z.to(dtype), (z + 0.3 * normal(b, d, seed + 1)).to(dtype))
    for _ in range(LOW_CHECKS):
        metrics, warning = monitor.check(views)
        assert warning is None
        assert all(math.isfinite(value) for value in metrics.values())


@settings(deadline=None, max_examples=20)
@given(size=SIZES, dtype=DTYPES, noise=st.sampled_from([0.0, 1e-3, 1e-2]))
def test_one_output_for_all_is_reported_within_three_checks(size, dtype, noise):
    b, d, seed = size
    z = (normal(1, d, seed).sign() + noise * normal(b, d, seed + 1)).to(dtype)
    monitor = CollapseMonitor()
    warnings = [monitor.check((z, z)).warning for _ in range(LOW_CHECKS)]
    assert warnings[-1] is not None
    assert warnings[-1].startswith("collapse: ")
    assert "Try" in warnings[-1]


@settings(deadline=None, max_examples=20)
@given(size=SIZES)
def test_outputs_on_a_line_are_reported_at_once(size):
    b, d, seed = size
    z = normal(b, 1, seed) * normal(1, d, seed + 1) + 1.0
    warning = CollapseMonitor().check((z, z)).warning
    assert warning is not None
    assert "one direction" in warning


def test_one_healthy_check_starts_the_count_again():
    low, high = normal(1, 8) + 1e-3 * normal(32, 8), normal(32, 8)
    monitor = CollapseMonitor()
    warnings = [monitor.check((z,)).warning for z in (low, low, high, low, low, low)]
    assert [warning is None for warning in warnings] == [True] * 5 + [False]


def test_a_resumed_monitor_warns_when_an_unbroken_one_does():
    low = normal(1, 8) + 1e-3 * normal(32, 8)
    monitor, resumed = CollapseMonitor(), CollapseMonitor()
    monitor.check((low,))
    monitor.check((low,))
    resumed.load_state_dict(monitor.state_dict())
    assert monitor.check((low,)) == resumed.check((low,))
    assert resumed.state_dict() == {"low_checks": 3}


def test_few_samples_are_not_called_low_rank():
    z = normal(2, 64)
    assert CollapseMonitor().check((z, z)).warning is None


def test_one_frame_is_neither_low_nor_measured():
    monitor = CollapseMonitor()
    for _ in range(4):
        assert monitor.check((torch.randn(1, 8), torch.randn(1, 8))) == ({}, None)


def test_outputs_that_are_not_finite_are_said_and_do_not_stop_the_check():
    broken = torch.randn(16, 8)
    broken[3, 2] = torch.nan
    metrics, warning = CollapseMonitor().check((broken, broken))
    assert metrics == {}
    assert "not finite" in warning
