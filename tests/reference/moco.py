"""MoCo by the letter: algorithm 1 and equation 1 of arXiv:1911.05722, one number at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from robossl.methods.parts.batch_norm import SplitBatchNorm

SETTINGS = {"queue_size": 21, "output_dim": 16, "batch_norm_groups": 2, "momentum": 0.9}
VARIANTS = {"version 1": {"head": "linear", "temperature": 0.07}}

Vectors = Sequence[Sequence[float]]


def info_nce(q: Vectors, k: Vectors, queue: Vectors, temperature: float) -> float:
    """Mean over queries of -log of the softmax at their own key; the queue's rows are unit vectors already."""
    total = 0.0
    for query, key in zip(map(_unit, q), map(_unit, k), strict=True):
        positive = math.exp(_dot(query, key) / temperature)
        negatives = sum(math.exp(_dot(query, other) / temperature) for other in queue)
        total -= math.log(positive / (positive + negatives))
    return total / len(q)


def _unit(a: Sequence[float]) -> list[float]:
    length = math.sqrt(_dot(a, a))
    return [x / length for x in a]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def keys_one_group_at_a_time(method, pixels, groups) -> list[list[float]]:
    """Each group of shuffled samples in a forward pass of its own, as on a GPU of its own."""
    encoder, projector = method.keys.copies
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(int(method.keys.draws))).tolist()
    size = len(pixels) // groups
    keys = [None] * len(pixels)
    for g in range(groups):
        members = order[g * size : (g + 1) * size]
        for member, key in zip(members, _whole(encoder, projector, pixels[members]), strict=True):
            keys[member] = key
    return keys


def queries_one_group_at_a_time(method, pixels, groups) -> list[list[float]]:
    return [row for part in pixels.chunk(groups) for row in _whole(method.encoder, method.projector, part)]


def _whole(encoder, projector, pixels) -> list[list[float]]:
    """What comes out where batch-norm takes all that it gets as one group."""
    norms = [module for module in encoder.modules() if isinstance(module, SplitBatchNorm)]
    before = [norm.groups for norm in norms]
    for norm in norms:
        norm.groups = 1
    out = projector(encoder(pixels).pooled).tolist()
    for norm, groups in zip(norms, before, strict=True):
        norm.groups = groups
    return out


def loss(method, batch) -> float:
    """Group after group; the queue as it is before this batch."""
    x_q, x_k = (view.pixels for view in batch.views)
    groups = method.config.batch_norm_groups
    q = queries_one_group_at_a_time(method, x_q, groups)
    k = keys_one_group_at_a_time(method, x_k, groups)
    return info_nce(q, k, method.queue.rows.tolist(), method.config.temperature)
