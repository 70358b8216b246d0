"""LooC by the letter: section 3 of arXiv:2008.05659, one number at a time; keys and groups as in MoCo's oracle."""

from __future__ import annotations

import math

import torch
from methods_kit import reference

SETTINGS = {"queue_size": 21, "output_dim": 16, "batch_norm_groups": 2, "momentum": 0.9}
VARIANTS = {"one space": {"kept": [["turn"]]}}


def encoded(encoder, heads, pixels, groups):
    """(sample, space, d), each group of samples in a forward pass of its own."""
    moco = reference("moco")
    spaces = [[row for part in pixels.chunk(groups) for row in moco._whole(encoder, head, part)] for head in heads]
    return [[[x / math.hypot(*row) for x in row] for row in sample] for sample in zip(*spaces, strict=True)]


def loss(method, batch) -> float:
    """Views one after another, each key view shuffled by the next permutation."""
    groups, t = method.config.batch_norm_groups, method.config.temperature
    q = encoded(method.encoder, method.projector, batch.views[0].pixels, groups)
    keys = []
    for number, view in enumerate(batch.views[1:]):
        order = torch.randperm(len(q), generator=torch.Generator().manual_seed(int(method.keys.draws) + number))
        shuffled = encoded(*method.keys.copies, view.pixels[order], groups)
        keys.append([shuffled[order.tolist().index(sample)] for sample in range(len(q))])
    total, n = 0.0, len(method.config.kept)
    for sample, query in enumerate(q):
        own = [[_e(query[space], key[sample][space], t) for key in keys] for space in range(n + 1)]
        far = [sum(_e(query[s], other, t) for other in queue.rows.tolist()) for s, queue in enumerate(method.queues)]
        terms = sum(math.log(own[0][j] / (own[0][j] + far[0])) for j in range(n + 1))
        terms += sum(math.log(own[i][i] / (sum(own[i]) + far[i])) for i in range(1, n + 1))
        total -= terms / (n + 1)
    return total / len(q)


def _e(a, b, temperature):
    return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature)
