"""VICReg by the letter: equations 1 to 6 of arXiv:2105.04906 with the official scale, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"hidden_dim": 64, "output_dim": 32}
VARIANTS = {"sum over branches": {"variance_over": "sum"}}
COLLAPSES = {"variance weight 0": {"variance_weight": 0.0}}
COLLAPSE_RECIPE = {"lr": 0.06}

Vectors = Sequence[Sequence[float]]


def invariance(z: Vectors, other: Vectors) -> float:
    """Mean over samples and channels."""
    squares = [(a - b) ** 2 for row, twin in zip(z, other, strict=True) for a, b in zip(row, twin, strict=True)]
    return sum(squares) / len(squares)


def variance(z: Vectors, gamma: float, epsilon: float) -> float:
    total = 0.0
    for column in zip(*z, strict=True):
        mean = sum(column) / len(column)
        var = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        total += max(0.0, gamma - math.sqrt(var + epsilon))
    return total / len(z[0])


def covariance(z: Vectors) -> float:
    columns = list(zip(*z, strict=True))
    centred = [[x - sum(column) / len(column) for x in column] for column in columns]
    total = 0.0
    for i, a in enumerate(centred):
        for j, b in enumerate(centred):
            if i != j:
                total += (sum(x * y for x, y in zip(a, b, strict=True)) / (len(z) - 1)) ** 2
    return total / len(columns)


def loss(method, batch) -> float:
    """Batch-norm in training mode sees one view at a time."""
    z, other = (method.expander(method.encoder(view.pixels).pooled).tolist() for view in batch.views)
    config = method.config
    variances = [variance(part, config.target_std, config.epsilon) for part in (z, other)]
    return (
        config.invariance_weight * invariance(z, other)
        + config.variance_weight * sum(variances) / (2 if config.variance_over == "mean" else 1)
        + config.covariance_weight * (covariance(z) + covariance(other))
    )
