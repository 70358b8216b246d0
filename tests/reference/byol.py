"""BYOL by the letter: equation 2 and algorithm 1 of arXiv:2006.07733, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"hidden_dim": 64, "output_dim": 32, "momentum": 0.9}
VARIANTS = {"fixed target": {"target": "fixed"}, "no predictor": {"predictor": False}}
COLLAPSES = {"no predictor": {"predictor": False}}

Vectors = Sequence[Sequence[float]]


def distance(q: Vectors, z: Vectors) -> float:
    """Mean over samples of |q / |q| - z / |z||^2."""
    total = 0.0
    for qi, zi in zip(q, z, strict=True):
        q_length, z_length = math.sqrt(sum(a * a for a in qi)), math.sqrt(sum(b * b for b in zi))
        total += sum((a / q_length - b / z_length) ** 2 for a, b in zip(qi, zi, strict=True))
    return total / len(q)


def loss(method, batch) -> float:
    """Batch-norm in training mode sees one view at a time."""
    v, w = (view.pixels for view in batch.views)
    target_encoder, target_projector = method.target.copies

    def predict(pixels):
        return method.predictor(method.projector(method.encoder(pixels).pooled)).tolist()

    def target(pixels):
        return target_projector(target_encoder(pixels).pooled).tolist()

    return distance(predict(v), target(w)) + distance(predict(w), target(v))
