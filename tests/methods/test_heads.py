"""Heads have the layers the papers say, and start as documented."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robossl.methods.parts.heads import mlp


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_hidden_layers_have_norm_and_relu_and_the_last_has_neither():
    head = mlp([4, 8, 8, 2])
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.bias is None for layer in head if isinstance(layer, nn.Linear)] == [True, True, False]
    assert head(torch.randn(5, 4)).shape == (5, 2)


def test_without_norm_all_layers_have_a_bias():
    head = mlp([4, 8, 2], norm="none")
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


@pytest.mark.parametrize(
    ("last_norm", "trained"), [("affine", ["weight", "bias"]), ("scale", ["weight"]), ("plain", [])]
)
def test_last_norm_trains_what_its_name_says(last_norm, trained):
    head = mlp([4, 8, 2], last_norm=last_norm)
    assert kinds(head)[-2:] == ["Linear", "BatchNorm1d"]
    assert [name for name, weight in head[-1].named_parameters() if weight.requires_grad] == trained
    out = head(torch.randn(64, 4))
    torch.testing.assert_close(out.mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_last_bias_can_be_left_out():
    assert mlp([4, 2], last_bias=False)[0].bias is None


def test_weights_start_as_documented():
    torch.manual_seed(0)
    uniform, normal = mlp([100, 2000])[0], mlp([100, 2000], init_std=0.01)[0]
    assert 0.099 < uniform.weight.abs().max() <= 0.1  # 1 / sqrt(fan in)
    assert normal.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not normal.bias.any()


def test_weights_depend_on_the_global_seed_alone():
    heads = []
    for _ in range(2):
        torch.manual_seed(3)
        heads.append(mlp([4, 8, 2]).state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
