"""SimSiam by the letter: algorithm 1 and equations 1, 2, 4 of arXiv:2011.10566, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

SETTINGS = {"projector_hidden_dim": 64, "output_dim": 64, "predictor_hidden_dim": 16}
BANK = {"predictor": "moving_average", "bank_size": 20}
VARIANTS = {
    "moving average": BANK,
    "asymmetric cross-entropy": {"symmetric": False, "similarity": "cross_entropy"},
    "no stop-gradient": {"stop_gradient": False},
    "official head": {"head": "official"},
}

Vectors = Sequence[Sequence[float]]


def negative_cosine(p: Vectors, z: Vectors) -> float:
    total = 0.0
    for pi, zi in zip(p, z, strict=True):
        dot = sum(a * b for a, b in zip(pi, zi, strict=True))
        total -= dot / (math.sqrt(sum(a * a for a in pi)) * math.sqrt(sum(b * b for b in zi)))
    return total / len(p)


def softmax_cross_entropy(p: Vectors, z: Vectors) -> float:
    total = 0.0
    for pi, zi in zip(p, z, strict=True):
        for prediction, target in zip(_softmax(pi), _softmax(zi), strict=True):
            total -= target * math.log(prediction)
    return total / len(p)


def _softmax(x: Sequence[float]) -> list[float]:
    powers = [math.exp(value) for value in x]
    return [power / sum(powers) for power in powers]


def moving_average(
    bank: dict[int, list[float]], index: Sequence[int], z: Vectors, momentum: float
) -> list[list[float]]:
    """Section 5.2: eta_x <- m eta_x + (1 - m) F(T(x)); the bank itself is left as it is."""
    averages = []
    for i, row in zip(index, z, strict=True):
        old = bank.get(i, list(row))
        averages.append([momentum * a + (1 - momentum) * b for a, b in zip(old, row, strict=True)])
    return averages


def loss(method, batch) -> float:
    """The default method's loss; batch-norm in training mode sees one view at a time."""
    z1, z2 = (method.projector(method.encoder(view.pixels).pooled) for view in batch.views)
    p1, p2 = method.predictor(z1), method.predictor(z2)
    return (negative_cosine(p1.tolist(), z2.tolist()) + negative_cosine(p2.tolist(), z1.tolist())) / 2
