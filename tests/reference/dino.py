"""DINO by the letter: algorithm 1 and equations 1 to 4 of arXiv:2104.14294, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

SETTINGS = {"head_batch_norm": True, "prototypes": 24, "hidden_dim": 32, "bottleneck_dim": 16, "num_local_views": 1}
VARIANTS = {
    "no batch-norm, no local crops": {"head_batch_norm": False, "num_local_views": 0},
    "no centre": {"center": False},
    "learned lengths": {"norm_last_layer": False},
}
COLLAPSES = {  # section 5.3 and figure 7: to one prototype, and to all alike
    "no centring": {"center": False},
    "no sharpening": {"teacher_temperature": 0.2, "teacher_temperature_start": 0.2, "momentum": 0.9},
}
COLLAPSE_RECIPE = {"steps": 45}

Vectors = Sequence[Sequence[float]]


def softmax(x: Sequence[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in x]
    return [power / sum(powers) for power in powers]


def cross_entropy(student: Vectors, teacher: Vectors, center: Sequence[float], ts: float, tt: float) -> float:
    """H(t, s) of algorithm 1: the mean over the batch."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        target = softmax([value - c for value, c in zip(t, center, strict=True)], tt)
        total -= sum(a * math.log(b) for a, b in zip(target, softmax(s, ts), strict=True))
    return total / len(student)


def dino(students: Sequence[Vectors], teachers: Sequence[Vectors], center: Sequence[float], ts: float, tt: float):
    """Equation 3: every global crop of the teacher against every other crop of the student."""
    terms = [
        cross_entropy(student, teacher, center, ts, tt)
        for g, teacher in enumerate(teachers)
        for v, student in enumerate(students)
        if v != g
    ]
    return sum(terms) / len(terms)


def moved_center(center: Sequence[float], teachers: Sequence[Vectors], momentum: float) -> list[float]:
    """Equation 4, over all global crops."""
    rows = [row for teacher in teachers for row in teacher]
    means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    return [momentum * c + (1 - momentum) * m for c, m in zip(center, means, strict=True)]


def logits(head, x: torch.Tensor) -> list[list[float]]:
    """The cosine of the bottleneck to each prototype, times its length if that is learned."""
    for layer in head.mlp:
        x = layer(x)
    prototypes = head.prototypes.weight.tolist()
    lengths = [1.0] * len(prototypes) if head.lengths is None else head.lengths.flatten().tolist()
    return [[g * cosine(row, v) for v, g in zip(prototypes, lengths, strict=True)] for row in x.tolist()]


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b)))


def crops(encoder, head, views) -> list[list[list[float]]]:
    """Logits of each view; batch-norm sees the global views together, and the local ones."""
    pixels = [torch.cat([view.pixels for view in views[:2]])]
    if len(views) > 2:
        pixels.append(torch.cat([view.pixels for view in views[2:]]))
    features = [encoder(part) for part in pixels]
    x = torch.cat([each.pooled if each.cls is None else each.cls for each in features])
    rows = logits(head, x)
    b = len(rows) // len(views)
    return [rows[i * b : (i + 1) * b] for i in range(len(views))]


def loss(method, batch) -> float:
    config = method.config
    teachers = crops(*method.teacher.copies, batch.views[:2])
    students = crops(method.student, method.head, batch.views)
    temperatures = config.student_temperature, method.teacher_temperature
    return dino(students, teachers, method.center.mean.tolist(), *temperatures)
