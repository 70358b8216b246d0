"""Temporal methods against known answers: mutual information on a circle, accuracies at chance, what must not count."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods_kit import build, configured, gradient, make_batch
from torch import nn

from robossl.encoders.encoder import Features
from robossl.errors import InputError
from robossl.methods.cpc import CPC, CPCConfig
from robossl.methods.cpc_rows import CPCRowsConfig, RowsContext
from robossl.methods.parts.context import ColumnEmbedding, build_context
from robossl.methods.parts.temporal import contrast, cyclic_shifts, log_mean_exp, pool_frames, similarity
from robossl.views import OPERATIONS, Batch, View

KAPPA, INFORMATION = 5.0, 1.162  # nats between neighbours: kappa I1(kappa) / I0(kappa) - ln I0(kappa)


class Passes(nn.Module):
    """An encoder whose features are the first two channels."""

    feature_dim = 2

    def forward(self, pixels):
        return Features(pixels[:, :2, 0, 0], pixels[:, :2], None)


def clips(angles):
    """A batch of clips of points on the circle, from angles (b, t)."""
    angles = torch.as_tensor(angles)
    pixels = torch.stack([angles.cos(), angles.sin(), angles * 0], -1)[..., None, None].float()
    b, t = angles.shape
    view = View(
        pixels=pixels,
        box=None,
        source_hw=torch.ones(b, 2, dtype=torch.int64),
        params={},
        time_seconds=torch.arange(t, dtype=torch.float64).repeat(b, 1) / 10,
        valid=torch.ones(b, t, dtype=torch.bool),
    )
    return Batch((view,), torch.arange(b))


def walk(draw, b, t):
    """Steps of von Mises noise from a uniform start."""
    steps = draw.vonmises(0, KAPPA, (b, t - 1))
    return np.cumsum(np.concatenate([draw.uniform(0, 2 * math.pi, (b, 1)), steps], 1), 1)


def trained(num_frames, negatives, *, b=256):
    torch.manual_seed(0)
    config = CPCConfig(num_frames=num_frames, steps=1, output_dim=4, context="none", negatives=negatives)
    method, draw = CPC(Passes(), config), np.random.default_rng(0)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        method(clips(walk(draw, b, num_frames))).value.backward()
        optimizer.step()
    return method


@torch.no_grad()
def measured(method, batches):
    found = [method(batch) for batch in batches]
    mean = {name: float(torch.stack([loss.metrics[name] for loss in found]).mean()) for name in found[0].metrics}
    return mean | {"loss": float(torch.stack([loss.value for loss in found]).mean())}


@pytest.fixture(scope="module")
def neighbours():
    return trained(2, "other")


def test_loss_reaches_the_mutual_information_of_the_circle(neighbours):
    draw = np.random.default_rng(1)
    found = measured(neighbours, [clips(walk(draw, 256, 2)) for _ in range(30)])
    num = 1 / found["chance_k1"]
    assert num == pytest.approx(511)
    assert math.log(num) - found["loss"] == pytest.approx(INFORMATION, abs=0.05)


def test_swapped_futures_are_at_chance_among_other_clips(neighbours):
    draw = np.random.default_rng(2)
    walks = [walk(draw, 16, 2) for _ in range(200)]
    ordered = measured(neighbours, [clips(angles) for angles in walks])
    swapped = [np.stack([a[:, 0], b[:, 1]], 1) for a, b in pairwise(walks)]
    assert ordered["accuracy_k1"] > 2.5 * ordered["chance_k1"]
    found = measured(neighbours, [clips(angles) for angles in swapped])
    assert found["chance_k1"] == pytest.approx(1 / 31)
    assert found["accuracy_k1"] == pytest.approx(1 / 31, abs=0.01)


def test_shuffled_time_is_at_chance_within_the_clip():
    method, draw = trained(6, "same", b=64), np.random.default_rng(3)
    walks = [walk(draw, 512, 6) for _ in range(4)]
    ordered = measured(method, [clips(angles) for angles in walks])
    assert ordered["accuracy_k1"] == ordered["same_clip_accuracy_k1"] > 0.28  # the frame before is as near
    shuffled = measured(method, [clips(draw.permuted(angles, axis=1)) for angles in walks])
    assert shuffled["chance_k1"] == pytest.approx(1 / 5)
    assert shuffled["accuracy_k1"] == pytest.approx(1 / 5, abs=0.02)


@pytest.mark.parametrize(("negatives", "count"), [("both", 3 * 5 - 1), ("other", 1 + 2 * 5), ("same", 4)])
def test_chance_counts_each_candidate_once(negatives, count):
    config = CPCConfig(num_frames=5, steps=2, output_dim=4, context="none", negatives=negatives)
    found = measured(CPC(Passes(), config), [clips(walk(np.random.default_rng(4), 3, 5))])
    assert found["chance_k1"] == pytest.approx(1 / count)
    assert found["chance_k2"] == pytest.approx(1 / count)
    assert found["same_clip_chance_k2"] == pytest.approx(1 / 4)


def test_a_frame_met_twice_is_no_negative_of_itself():
    """In a pause the store keeps one frame, which then stands at several places of a clip."""
    batch = clips(walk(np.random.default_rng(5), 2, 5))
    times = batch.views[0].time_seconds.clone()
    times[0, 1:4] = times[0, 1]
    paused = Batch((replace(batch.views[0], time_seconds=times),), batch.index)
    config = CPCConfig(num_frames=5, steps=1, output_dim=4, context="none", negatives="same")
    found = measured(CPC(Passes(), config), [paused])
    # clip 0, by anchor: 0 has 1 negative (frame 4), 1 and 2 have 2 (0 and 4), 3 has 1 (0); each anchor of clip 1 has 3
    expected = (1 / 2 + 1 / 3 + 1 / 3 + 1 / 2 + 4 / 4) / 8
    assert found["chance_k1"] == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cpc", "tcn", "r3m", "vip"])
def test_frames_that_are_not_valid_count_nowhere(name):
    method = build(configured(name)).eval()  # batch-norm in training mode would mix them in
    method.encoder.requires_grad_(False)
    batch = make_batch(method)
    view = batch.views[0]
    pixels = view.pixels.clone()
    if name in ("r3m", "vip"):  # a clip that lacks a frame is none
        lacks = ~view.valid.all(1)
        pixels[lacks] = pixels[lacks].roll(1, 1) + 5
    else:
        pixels[~view.valid] += 5
    assert not torch.equal(pixels, view.pixels)
    changed = Batch((replace(view, pixels=pixels),), batch.index)
    assert method(changed).value.item() == pytest.approx(method(batch).value.item(), rel=1e-12)
    gone = Batch((replace(view, pixels=pixels, valid=torch.ones_like(view.valid)),), batch.index)
    assert method(gone).value.item() != pytest.approx(method(batch).value.item(), rel=1e-6)


def test_nothing_valid_is_a_loss_of_zero_with_gradients():
    method = build(configured("cpc"))
    batch = make_batch(method)
    none = Batch((replace(batch.views[0], valid=torch.zeros_like(batch.views[0].valid)),), batch.index)
    assert method(none).value.item() == 0.0
    assert not gradient(method, none).any()


def test_warm_up_frames_are_neither_anchors_nor_candidates():
    words = {"steps": 2, "output_dim": 4, "context": "none"}
    long = CPC(Passes(), CPCConfig(num_frames=6, warmup_frames=2, **words))
    short = CPC(Passes(), CPCConfig(num_frames=4, **words))
    short.load_state_dict(long.state_dict())
    angles = walk(np.random.default_rng(6), 8, 6)
    assert long(clips(angles)).value.item() == pytest.approx(short(clips(angles[:, 2:])).value.item(), rel=1e-6)


def test_equal_codes_hit_nothing():
    """A tie is no hit, so that a collapse reads as below chance, not as perfect."""
    pool = pool_frames(torch.ones(4, 3, 2), torch.arange(3.0).repeat(4, 1), torch.ones(4, 3, dtype=torch.bool))
    logits = similarity(pool.z[pool.own[:, 0]], pool.z, "dot")
    tally = contrast(logits, pool, anchor=pool.own[:, 0], positive=pool.own[:, 1], negatives="both")
    assert tally.hits == tally.own_hits == 0
    assert tally.loss.item() / 4 == pytest.approx(math.log(11))


@pytest.mark.parametrize("kind", ["gru", "lstm", "transformer", "none"])
def test_context_sees_nothing_that_comes_later(kind):
    torch.manual_seed(0)
    context = build_context(kind, 6, 8, layers=2, num_frames=5).double()
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = context(x), context(changed)
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=1e-12)
    assert (before[:, 3:] - after[:, 3:]).abs().amax(-1).min() > 1e-3


def test_rows_context_sees_nothing_below():
    torch.manual_seed(0)
    context = RowsContext(4, 3).double()
    z = torch.randn(2, 5, 5, 4, dtype=torch.float64)
    changed = z.clone()
    changed[:, 3:] += 1
    before, after = context(z), context(changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()
    changed = z.clone()
    changed[:, 1, 4] += 1  # a patch above and to the side
    assert not torch.equal(context(z)[:, 4, 2], context(changed)[:, 4, 2])


def test_columns_are_standardised_embedded_looked_up_and_late():
    torch.manual_seed(0)
    z, force, tool = torch.zeros(3, 4, 2), 1000 + 50 * torch.randn(3, 4, 5), torch.tensor([0.0, 2.0, 1.0, 2.0])
    columns = ColumnEmbedding({"force": 5}, {"tool": 3}, dim=6, lag=1)
    values = {"force": force, "tool": tool.expand(3, 4)[..., None]}
    out = columns(z, values)
    assert out.shape == (3, 4, 2 + 6 + 6)
    assert not out[:, 0].any() and out[:, 1:, 2:].abs().mean() < 2
    torch.testing.assert_close(out[0, 1:, 8:], columns.tables[0].weight[[0, 2, 1]])
    assert torch.allclose(columns(z, values | {"force": 3 * force - 7})[..., 2:8], out[..., 2:8], atol=1e-3)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"action": torch.zeros(2, 3, 4), "tool": torch.zeros(2, 3, 1)}, "is 4 wide, got 5; set method.columns.action"),
        ({"action": torch.zeros(2, 3, 5), "tool": torch.zeros(2, 3, 2)}, "must be one number a frame, it is 2 wide"),
    ],
)
def test_columns_of_another_kind_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        ColumnEmbedding({"action": 5}, {"tool": 3}, dim=2, lag=0)(torch.zeros(2, 3, 2), columns)


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 1000))
def test_cyclic_shifts_are_different_and_never_back_to_oneself(num, count, step):
    shifts = cyclic_shifts(num, count=count, step=step).tolist()
    assert len(set(shifts)) == len(shifts) == min(count, num - 1)
    assert all(0 < shift < num for shift in shifts)


def test_log_mean_exp_does_not_overflow_and_leaves_out_what_does_not_count():
    x, where = torch.tensor([1000.0, 1000.0, 5000.0]), torch.tensor([True, True, False])
    assert log_mean_exp(x, where).item() == 1000.0


@pytest.mark.parametrize("num", [0, 3])
def test_log_mean_exp_of_nothing_is_0_with_gradients_of_0(num):
    x = torch.full((num,), 7.0, requires_grad=True)
    mean = log_mean_exp(x, torch.zeros(num, dtype=torch.bool))
    mean.backward()
    assert mean.item() == 0
    assert torch.equal(x.grad, torch.zeros(num))


def test_atc_augments_its_frames_apart_and_its_teacher_follows_slowly():
    method = build(configured("atc"))
    (spec,) = method.views()
    assert (spec.clip.num_frames, spec.clip.rule, spec.per_frame) == (2, "inside", OPERATIONS)
    before = method.teacher.copies[1].weight.clone()
    with torch.no_grad():
        method.projector.weight += 1
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher.copies[1].weight, before + 0.01)


def test_tcn_leaves_out_a_far_frame_that_is_the_same_frame():
    method = build(configured("tcn"))
    batch = make_batch(method)
    times = batch.views[0].time_seconds.clone()
    times[:2, 2] = times[:2, 1]
    found = method(Batch((replace(batch.views[0], time_seconds=times),), batch.index)).metrics
    assert found["has_far"].item() == pytest.approx(5 / 8)  # two pauses and the clip that is too short


def test_vip_has_no_cost_at_the_goal():
    method = build(configured("vip", l1_weight=0.0, l2_weight=0.0, discount=0.0))
    batch = make_batch(method)
    view = batch.views[0]
    times, pixels = view.time_seconds.clone(), view.pixels[:, 3:].expand_as(view.pixels)
    there = replace(view, pixels=pixels, valid=torch.ones_like(view.valid))
    assert method(Batch((there,), batch.index)).value.item() == pytest.approx(1.0)  # V is 0 all along, r is -1
    times[:, 1:] = times[:, 1:2]
    assert method(Batch((replace(there, time_seconds=times),), batch.index)).value.item() == pytest.approx(0.0)


def test_r3m_and_vip_draw_other_negatives_at_every_step():
    for name in ("r3m", "vip"):
        method = build(configured(name, num_negatives=2))
        batch, losses = make_batch(method), []
        for step in (0, 1, 0):
            method.before_step(step, 3)
            losses.append(method(batch).value.item())
        assert losses[0] == losses[2] != losses[1]


def test_cpc_rows_refuses_batch_norm():
    with pytest.raises(InputError, match="has batch-norm, through which patches share information; choose one"):
        build(CPCRowsConfig())
