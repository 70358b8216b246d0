"""NT-Xent by the letter: equation 1 and algorithm 1 of arXiv:2002.05709, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

VARIANTS = {"official head": {"head": "official", "projector_layers": 3}}

Vectors = Sequence[Sequence[float]]


def nt_xent(z0: Vectors, z1: Vectors, temperature: float) -> float:
    z = [row for pair in zip(z0, z1, strict=True) for row in pair]  # views 2k and 2k + 1 are of one sample
    num = len(z)

    def pair_loss(i: int, j: int) -> float:
        others = sum(math.exp(_cosine(z[i], z[k]) / temperature) for k in range(num) if k != i)
        return -math.log(math.exp(_cosine(z[i], z[j]) / temperature) / others)

    return sum(pair_loss(2 * k, 2 * k + 1) + pair_loss(2 * k + 1, 2 * k) for k in range(num // 2)) / num


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def loss(method, batch) -> float:
    """The default method's loss; batch-norm in training mode sees both views at once."""
    pixels = torch.cat([view.pixels for view in batch.views])
    z0, z1 = method.projector(method.encoder(pixels).pooled).chunk(2)
    return nt_xent(z0.tolist(), z1.tolist(), method.config.temperature)
