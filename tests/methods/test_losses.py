"""Losses equal the papers' formulas and two independent packages in fp64, and hold under low precision."""

from __future__ import annotations

import importlib.util
import math
import warnings

import pytest
import torch
from places import TESTS
from pytorch_metric_learning.losses import NTXentLoss as MetricLearningNTXent

from robossl.methods.parts.losses import negative_cosine, nt_xent, softmax_cross_entropy

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss

SIZES = [(2, 3), (5, 16), (16, 128)]


def reference(name):
    path = TESTS / "reference" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"reference_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def embeddings(b, d, *, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    return tuple((scale * torch.randn(b, d, generator=draw, dtype=torch.float64)).requires_grad_() for _ in "01")


@pytest.mark.parametrize(("b", "d"), SIZES)
@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 1.0])
def test_nt_xent_equals_formula_lightly_and_metric_learning(b, d, temperature):
    z0, z1 = embeddings(b, d)
    ours = nt_xent((z0, z1), everyone=(z0, z1), temperature=temperature)
    labels = torch.arange(b).repeat(2)
    others = [
        torch.tensor(reference("simclr").nt_xent(z0.tolist(), z1.tolist(), temperature), dtype=torch.float64),
        NTXentLoss(temperature=temperature)(z0, z1),
        MetricLearningNTXent(temperature=temperature)(torch.cat([z0, z1]), labels),
    ]
    for other in others:
        assert abs(ours.item() - other.item()) < 1e-12
    gradients = torch.autograd.grad(ours, [z0, z1])
    for other in others[1:]:
        for ours_grad, other_grad in zip(gradients, torch.autograd.grad(other, [z0, z1]), strict=True):
            torch.testing.assert_close(ours_grad, other_grad, rtol=0, atol=1e-12)


def test_nt_xent_of_a_share_uses_everyone_as_negatives():
    z0, z1 = embeddings(6, 8)
    whole = nt_xent((z0, z1), everyone=(z0, z1), temperature=0.1)
    shares = [nt_xent((z0[i : i + 2], z1[i : i + 2]), everyone=(z0, z1), first=i, temperature=0.1) for i in (0, 2, 4)]
    assert abs(torch.stack(shares).mean().item() - whole.item()) < 1e-12


@pytest.mark.parametrize(("b", "d"), SIZES)
def test_negative_cosine_equals_formula_and_lightly(b, d):
    p, z = embeddings(b, d)
    ours = negative_cosine(p, z)
    assert abs(ours.item() - reference("simsiam").negative_cosine(p.tolist(), z.tolist())) < 1e-12
    other = NegativeCosineSimilarity()(p, z)
    assert abs(ours.item() - other.item()) < 1e-12
    ours_grad, other_grad = torch.autograd.grad(ours, p)[0], torch.autograd.grad(other, p)[0]
    torch.testing.assert_close(ours_grad, other_grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("b", "d"), SIZES)
def test_softmax_cross_entropy_equals_formula(b, d):
    p, z = embeddings(b, d)
    expected = reference("simsiam").softmax_cross_entropy(p.tolist(), z.tolist())
    assert abs(softmax_cross_entropy(p, z).item() - expected) < 1e-12


def test_softmax_cross_entropy_of_equal_flat_outputs_is_log_d():
    flat = torch.zeros(4, 32)
    assert softmax_cross_entropy(flat, flat).item() == pytest.approx(math.log(32), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_half_precision_outputs_are_those_in_fp32(dtype):
    z0, z1 = (z.detach().to(dtype) for z in embeddings(16, 128))
    with torch.autocast("cpu", torch.bfloat16):
        halves = [
            nt_xent((z0, z1), everyone=(z0, z1), temperature=0.05),
            negative_cosine(z0, z1),
            softmax_cross_entropy(z0, z1),
        ]
    z0, z1 = z0.float(), z1.float()
    fulls = [
        nt_xent((z0, z1), everyone=(z0, z1), temperature=0.05),
        negative_cosine(z0, z1),
        softmax_cross_entropy(z0, z1),
    ]
    for half, full in zip(halves, fulls, strict=True):
        assert half.dtype == torch.float32
        assert half.item() == full.item()
