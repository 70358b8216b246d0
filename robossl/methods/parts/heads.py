"""Heads: multilayer perceptrons on the pooled feature."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

Norm = Literal["none", "affine", "scale", "plain"]
"""Batch-norm after a linear layer: none, with scale and shift, with scale alone, with neither."""


def mlp(
    dims: Sequence[int],
    *,
    norm: Norm = "affine",
    last_norm: Norm = "none",
    last_bias: bool = True,
    init_std: float | None = None,
) -> nn.Sequential:
    """Return linear layers with these widths; all but the last layer are followed by batch-norm and ReLU.

    A linear layer before a batch-norm has no bias, because the norm would remove it. Weights are drawn from torch's
    global generator. By default they are uniform in +-1/sqrt(fan in), as in `nn.Linear`. With `init_std`, they are from
    a normal distribution with mean 0.

    Args:
        dims: input, hidden and output widths; two or more.
        norm: kind of batch-norm after each hidden layer.
        last_norm: kind of batch-norm after the output layer; no ReLU follows it.
        last_bias: whether an output layer without batch-norm has a bias.
        init_std: standard deviation of normal weights, as in SimCLR's official code; None for the default.
    """
    layers: list[nn.Module] = []
    last = len(dims) - 2
    for i, (fan_in, fan_out) in enumerate(pairwise(dims)):
        layer_norm = last_norm if i == last else norm
        bias = layer_norm == "none" and (i < last or last_bias)
        layers += [_linear(fan_in, fan_out, bias=bias, std=init_std), *_batch_norm(fan_out, layer_norm)]
        if i < last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def _linear(fan_in: int, fan_out: int, *, bias: bool, std: float | None) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias=bias)
    if std is not None:
        nn.init.normal_(layer.weight, std=std)
        if bias:
            nn.init.zeros_(layer.bias)
    return layer


def _batch_norm(dim: int, norm: Norm) -> list[nn.Module]:
    if norm == "none":
        return []
    layer = nn.BatchNorm1d(dim, affine=norm != "plain")
    if norm == "scale":
        # torch has no batch-norm with only a scale, so the bias exists, but stays 0.
        layer.bias.requires_grad_(False)
    return [layer]
