"""PixContrast by the letter: equations 1 and 2 of arXiv:2011.10043, one pixel at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from methods_kit import reference

SIZE = 66  # 3 x 3 bins
SETTINGS = {"hidden_dim": 24, "output_dim": 12}
# A map of one bin teaches nothing, so the views are larger than the other methods'.
LEARN_SETTINGS = {
    "hidden_dim": 256,
    "output_dim": 64,
    "view_0": {"size": SIZE},
    "view_1": {"size": SIZE},
}

PIXPRO = reference("pixpro")
Vector = Sequence[float]


def contrast(
    x: Sequence[Vector], other: Sequence[Vector], matched: Sequence[Sequence[bool]], temperature: float
) -> float:
    """One image: the mean over its pixels that have a match in the other view."""
    losses = []
    for pixel, row in zip(x, matched, strict=True):
        powers = [math.exp(PIXPRO.cosine(pixel, each) / temperature) for each in other]
        positive = sum(power for power, found in zip(powers, row, strict=True) if found)
        negative = sum(power for power, found in zip(powers, row, strict=True) if not found)
        if any(row):
            losses.append(-math.log(positive / (positive + negative)))
    return sum(losses) / len(losses) if losses else 0.0


def loss(method, batch) -> float:
    config = method.config
    x = [PIXPRO.pixels(each) for each in PIXPRO.maps(method.encoder, method.projector, batch.views)]
    teacher = [PIXPRO.pixels(each) for each in PIXPRO.maps(*method.teacher.copies, batch.views)]
    total = 0.0
    for i, matched in enumerate(PIXPRO.matches(batch.views, (3, 3), config.threshold)):
        backwards = list(zip(*matched, strict=True))
        total += contrast(x[0][i], teacher[1][i], matched, config.temperature) / 2
        total += contrast(x[1][i], teacher[0][i], backwards, config.temperature) / 2
    return total / len(batch.index)
