"""Barlow Twins by the letter: equations 1 and 2 and algorithm 1 of arXiv:2103.03230, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"hidden_dim": 48, "output_dim": 24}
VARIANTS = {"one layer": {"projector_layers": 1, "redundancy_weight": 0.1}}

Vectors = Sequence[Sequence[float]]


def normalised(z: Vectors, eps: float = 1e-5) -> list[list[float]]:
    """Each channel less its mean, over its standard deviation along the batch, as a batch-norm does."""
    n = len(z)
    columns = []
    for column in zip(*z, strict=True):
        mean = sum(column) / n
        var = sum((x - mean) ** 2 for x in column) / n
        columns.append([(x - mean) / math.sqrt(var + eps) for x in column])
    return columns


def barlow_twins(z_a: Vectors, z_b: Vectors, weight: float) -> float:
    a, b = normalised(z_a), normalised(z_b)
    total = 0.0
    for i, column_a in enumerate(a):
        for j, column_b in enumerate(b):
            c = sum(x * y for x, y in zip(column_a, column_b, strict=True)) / len(z_a)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def loss(method, batch) -> float:
    """Batch-norm in training mode sees one view at a time."""
    z_a, z_b = (method.projector(method.encoder(view.pixels).pooled).tolist() for view in batch.views)
    return barlow_twins(z_a, z_b, method.config.redundancy_weight)
