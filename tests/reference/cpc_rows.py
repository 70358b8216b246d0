"""CPC over rows by the letter: section 3.2 of arXiv:1807.03748, one patch, one row and one candidate at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

SETTINGS = {
    "patch_size": 24,  # three rows in the 32 pixels of the tests
    "patch_stride": 4,
    "steps": 1,
    "output_dim": 8,
    "context_layers": 2,
    "allow_batch_norm": True,
    "view": {"size": 32},
}
# Patches small enough to differ within the 32 pixels of the learning test.
LEARN_SETTINGS = {"patch_size": 16, "patch_stride": 8, "output_dim": 64}
VARIANTS = {"same image": {"negatives": "same"}, "next row too": {"steps": 2, "skip_rows": 0, "negatives": "other"}}

Grid = Sequence[Sequence[Sequence[float]]]  # row, column, channel


def cpc(predictions, z: Sequence[Grid], *, first: int, negatives: str) -> float:
    """Predictions: image, row, column, step; step s is of the row `first` + s further down."""
    patches = [(i, r, c) for i, grid in enumerate(z) for r, row in enumerate(grid) for c in range(len(row))]
    terms = []
    for i, r, c in patches:
        for step, prediction in enumerate(predictions[i][r][c]):
            below = (i, r + first + step, c)
            if below not in patches:
                continue
            rivals = [
                patch
                for patch in patches
                if patch not in ((i, r, c), below) and (negatives == "both" or (patch[0] == i) == (negatives == "same"))
            ]
            score, *others = (
                math.exp(sum(a * b for a, b in zip(prediction, z[j][s][d], strict=True)))
                for j, s, d in (below, *rivals)
            )
            terms.append(-math.log(score / (score + sum(others))))
    return sum(terms) / len(terms)


def loss(method, batch) -> float:
    """Batch-norm in training mode sees all patches together."""
    pixels, config = batch.views[0].pixels, method.config
    corners = range(0, pixels.shape[-1] - config.patch_size + 1, config.patch_stride)
    cut = [
        image[:, y : y + config.patch_size, x : x + config.patch_size]
        for image in pixels
        for y in corners
        for x in corners
    ]
    z = method.projector(method.encoder(torch.stack(cut)).pooled).view(len(pixels), len(corners), len(corners), -1)
    predictions = method.heads(method.context(z)).view(*z.shape[:3], config.steps, -1)
    return cpc(predictions.tolist(), z.tolist(), first=config.skip_rows + 1, negatives=config.negatives)
