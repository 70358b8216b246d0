"""ATC by the letter: the InfoNCE of arXiv:2009.08319 with in-batch negatives, one score at a time."""

from __future__ import annotations

import math

SETTINGS = {"ahead_seconds": 0.2, "output_dim": 8, "predictor_hidden_dim": 16}

# The question is asked of cropped and coloured frames: the paper's shift of a few pixels teaches nothing about those.
LEARN_SETTINGS = {"output_dim": 64, "view": {"scale": [0.3, 1.0], "jitter_p": 0.8, "grayscale_p": 0.2}}


def loss(method, batch) -> float:
    """A fresh teacher has the student's weights; each sees its own frames, so batch-norm does too."""
    view = batch.views[0]
    c = method.projector(method.encoder(view.pixels[:, 0]).pooled)
    queries = method.w(c + method.predictor.mlp(c)).tolist()
    encoder, projector = method.teacher.copies
    keys = projector(encoder(view.pixels[:, 1]).pooled).tolist()
    total = 0.0
    for i, query in enumerate(queries):
        scores = [math.exp(sum(a * b for a, b in zip(query, key, strict=True))) for key in keys]
        total -= math.log(scores[i] / sum(scores))
    return total / len(queries)
