"""SwAV by the letter: equations 2 to 5 and algorithm 1 of arXiv:2006.09882, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

SETTINGS = {"prototypes": 12, "hidden_dim": 32, "output_dim": 16, "num_local_views": 1}
# The paper's colours and its crops of a twentieth of a frame leave little of 32 pixels; batches of 16 collapse on them.
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
LEARN_SETTINGS = {
    "prototypes": 64,
    "hidden_dim": 256,
    "output_dim": 64,
    "freeze_prototypes_steps": 50,
    "num_local_views": 2,
    "global_view": {"scale": [0.3, 1.0]} | COLOURS,
    "local_view": {"size": 32, "scale": [0.2, 0.6]} | COLOURS,
}
LEARN_RECIPE = {"lr": 0.002}
VARIANTS = {
    "queue": {"queue_size": 8},
    "no local crops, 1 iteration": {"num_local_views": 0, "sinkhorn_iterations": 1},
}
COLLAPSES = {"codes not shared out": {"sinkhorn_iterations": 0}}
COLLAPSE_RECIPE = {"steps": 30}

Vectors = Sequence[Sequence[float]]


def sinkhorn(scores: Vectors, epsilon: float, iterations: int) -> list[list[float]]:
    """Algorithm 1's: Q with rows of prototypes and columns of samples, scaled to 1/K and 1/B in turn."""
    num, k = len(scores), len(scores[0])
    q = [[math.exp(row[j] / epsilon) for row in scores] for j in range(k)]
    total = sum(map(sum, q))
    q = [[value / total for value in row] for row in q]
    for _ in range(iterations):
        q = [[value / sum(row) / k for value in row] for row in q]
        columns = [sum(row[i] for row in q) for i in range(num)]
        q = [[value / columns[i] / num for i, value in enumerate(row)] for row in q]
    return [[q[j][i] * num for j in range(k)] for i in range(num)]


def log_softmax(x: Sequence[float], temperature: float) -> list[float]:
    total = sum(math.exp(value / temperature) for value in x)
    return [value / temperature - math.log(total) for value in x]


def swapped(codes: Vectors, scores: Vectors, temperature: float) -> float:
    """Equation 2: the mean over the batch of -sum_k q log p."""
    total = 0.0
    for q, s in zip(codes, scores, strict=True):
        total -= sum(a * b for a, b in zip(q, log_softmax(s, temperature), strict=True))
    return total / len(codes)


def swav(codes: Sequence[Vectors], scores: Sequence[Vectors], temperature: float) -> float:
    """Section 3.3: the codes of the first two crops against every other crop."""
    terms = [swapped(codes[i], s, temperature) for i in (0, 1) for v, s in enumerate(scores) if v != i]
    return sum(terms) / len(terms)


def unit(x: Sequence[float]) -> list[float]:
    norm = math.sqrt(sum(value * value for value in x))
    return [value / norm for value in x]


def scores_of(z: Vectors, prototypes: Vectors) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(row, c, strict=True)) for c in prototypes] for row in z]


def features(method, views) -> list[list[list[float]]]:
    """Unit features of each view; batch-norm sees views of one size together, the head's sees all."""
    parts = [torch.cat([view.pixels for view in part]) for part in (views[:2], views[2:]) if part]
    rows = method.projector(torch.cat([method.encoder(part).pooled for part in parts])).tolist()
    b = len(rows) // len(views)
    return [[unit(row) for row in rows[i * b : (i + 1) * b]] for i in range(len(views))]


def loss(method, batch) -> float:
    config = method.config
    prototypes = [unit(row) for row in method.prototypes.weight.tolist()]
    scores = [scores_of(z, prototypes) for z in features(method, batch.views)]
    codes = [sinkhorn(scores[i], config.epsilon, config.sinkhorn_iterations) for i in (0, 1)]
    return swav(codes, scores, config.temperature)
