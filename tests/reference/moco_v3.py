"""MoCo v3 by the letter: algorithm 1 of arXiv:2104.02057, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"hidden_dim": 64, "output_dim": 32, "momentum": 0.9}
VARIANTS = {"as for a transformer": {"projector_layers": 3, "predictor_last_norm": True, "temperature": 1.0}}

Vectors = Sequence[Sequence[float]]


def contrast(q: Vectors, k: Vectors, tau: float) -> float:
    """2 tau times the mean of -log of the softmax over all keys at the query's own."""
    total = 0.0
    for i, query in enumerate(q):
        powers = [math.exp(_cosine(query, key) / tau) for key in k]
        total -= math.log(powers[i] / sum(powers))
    return 2 * tau * total / len(q)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def loss(method, batch) -> float:
    """Batch-norm in training mode sees one view at a time; on a ResNet the feature is pooled."""
    x1, x2 = (view.pixels for view in batch.views)
    key_encoder, key_projector = method.keys.copies
    q1, q2 = (method.predictor(method.projector(method.encoder(x).pooled)).tolist() for x in (x1, x2))
    k1, k2 = (key_projector(key_encoder(x).pooled).tolist() for x in (x1, x2))
    tau = method.config.temperature
    return contrast(q1, k2, tau) + contrast(q2, k1, tau)
