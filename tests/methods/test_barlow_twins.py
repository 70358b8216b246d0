"""Barlow Twins beyond what test_methods.py asks of every method."""

from __future__ import annotations

import warnings

import pytest
import torch
from methods_kit import build, configured, make_batch
from torch import nn

from robossl.errors import InputError
from robossl.methods.barlow_twins import BarlowTwinsConfig, redundancy

with warnings.catch_warnings():  # importing lightly imports pytorch_lightning, which warns about its own imports
    warnings.simplefilter("ignore")
    from lightly.loss import BarlowTwinsLoss


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"projector_layers": 0}, "projector_layers must be 1 or more, got 0"),
        ({"redundancy_weight": -1.0}, r"redundancy_weight must not be negative, got -1.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(InputError, match=message):
        BarlowTwinsConfig(**words)


@pytest.mark.parametrize("weight", [0.0051, 0.1])
def test_loss_equals_lightly(weight):
    method = build(configured("barlow_twins", redundancy_weight=weight))
    loss = method(make_batch(method))
    assert abs(loss.value - BarlowTwinsLoss(lambda_param=weight)(*loss.outputs)) < 1e-12 * loss.value


def test_loss_is_zero_at_the_identity_and_counts_every_other_entry():
    c = torch.eye(4, dtype=torch.float64)
    assert sum(redundancy(c, weight=0.5)) == 0
    c[0, 1] = 2.0
    c[3, 3] = -1.0
    assert [term.item() for term in redundancy(c, weight=0.5)] == [4.0, 2.0]


def test_metrics_are_the_two_terms():
    method = build(configured("barlow_twins"))
    loss = method(make_batch(method))
    torch.testing.assert_close(sum(loss.metrics.values()), loss.value.detach())


def test_head_is_three_layers_of_8192_and_the_norm_has_no_weights():
    with torch.device("meta"):
        config = BarlowTwinsConfig()
        method = config.build(build(configured("barlow_twins")).encoder)
    linear = [layer for layer in method.projector if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [8192] * 3
    assert all(layer.bias is None for layer in linear)
    assert not list(method.norm.parameters())


def test_a_sum_over_gpus_without_a_backward_divides_the_gradient_by_their_number():
    """The authors' all-reduce: every GPU's loss sees the others' part as a constant, and gradients are averaged.

    So their rate of biases and their weight decay are scaled in configs/barlow_twins_resnet50_imagenet.yaml.
    """
    torch.manual_seed(0)
    x0, x1 = torch.randn(2, 12, 6, dtype=torch.float64)
    layer, norm, gpus = nn.Linear(6, 5).double(), nn.BatchNorm1d(5, affine=False).double(), 4

    def gradient_of(loss):
        return torch.cat(
            [weight.flatten() for weight in torch.autograd.grad(loss, layer.parameters(), retain_graph=True)]
        )

    z0, z1 = norm(layer(x0)), norm(layer(x1))
    parts = [a.T @ b / 12 for a, b in zip(z0.chunk(gpus), z1.chunk(gpus), strict=True)]
    whole = gradient_of(sum(redundancy(sum(parts), weight=0.0051)))
    theirs = []
    for own in range(gpus):
        others = sum(part.detach() for i, part in enumerate(parts) if i != own)
        theirs.append(gradient_of(sum(redundancy(parts[own] + others, weight=0.0051))))
    torch.testing.assert_close(sum(theirs) / gpus, whole / gpus)
