"""R3M's L_tcn by the letter of its trainer, with negatives that are never the sample itself, one clip at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from robossl.methods.parts.temporal import cyclic_shifts

SETTINGS = {"gap_seconds": 0.2}
# The question changes crops and colours, so frames are treated apart: what a whole clip shares is no invariance.
LEARN_SETTINGS = {
    "view": {"scale": [0.3, 1.0], "jitter_p": 0.8, "grayscale_p": 0.2, "per_frame": ["crop", "jitter", "grayscale"]},
}
VARIANTS = {"cosine": {"similarity": "cosine"}}


def similarity(a: Sequence[float], b: Sequence[float], kind: str) -> float:
    if kind == "l2":
        return -math.dist(a, b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def loss(method, batch) -> float:
    """The whole loss of a batch; batch-norm in training mode sees all frames together."""
    view, config = batch.views[0], method.config
    z = method.encoder(view.pixels.flatten(0, 1)).pooled.view(*view.valid.shape, -1).tolist()
    valid = [all(row) for row in view.valid.tolist()]
    shifts = cyclic_shifts(len(z), count=config.num_negatives, step=method.step).tolist()
    assert len(set(shifts)) == 3 and all(0 < shift < len(z) for shift in shifts)

    def e(a, b):
        return math.exp(similarity(a, b, config.similarity))

    terms = []
    for i, (s0, s1, s2) in enumerate(z):
        if not valid[i]:
            continue
        away = [z[(i + shift) % len(z)] for shift in shifts if valid[(i + shift) % len(z)]]
        late = e(s2, s1) / (e(s2, s0) + e(s2, s1) + sum(e(s2, other[2]) for other in away))
        early = e(s1, s0) / (e(s1, s0) + e(s2, s0) + sum(e(s0, other[0]) for other in away))
        l1 = sum(abs(x) for frame in (s0, s1, s2) for x in frame) / 3
        l2 = sum(math.hypot(*frame) for frame in (s0, s1, s2)) / 3
        terms.append(-(math.log(late) + math.log(early)) / 2 + config.l1_weight * l1 + config.l2_weight * l2)
    return sum(terms) / len(terms)
