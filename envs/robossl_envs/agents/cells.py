"""Coarse cells of what is seen, by hashing: #Exploration (arXiv:1611.04717), section 2.2.

A cell is the side of `BITS` random planes that the state lies on, or the frame as 8x8 grey means where the environment
tells no state: as coarse in ten dimensions as in two.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import Seen

BITS = 8  # of 8 to 12, those that covered most of robossl/Push-v0 in 10^4 frames
NUM_CELLS = 2**BITS
WARM_UP = 256  # views that fix the scale of each dimension; cells must not move later


class Cells:
    """Which cell each view falls in; all in cell 0 until the scales are known."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng
        self._first: list[Float[ndarray, " d"]] = []
        self._planes: tuple[Float[ndarray, "d k"], Float[ndarray, " k"]] | None = None

    def __call__(self, seen: Seen) -> Int64[ndarray, " n"]:
        """The cells of all rows."""
        views = seen.states.astype(np.float64) if seen.states.shape[1] else grey_cells(seen)
        if self._planes is None:
            self._first.extend(views)
            if len(self._first) < WARM_UP:
                return np.zeros(len(views), np.int64)
            self._planes = self._draw(np.stack(self._first))
        weights, offsets = self._planes
        cells: Int64[ndarray, " n"] = (views @ weights + offsets > 0) @ (1 << np.arange(BITS))
        return cells

    def _draw(self, first: Float[ndarray, "n d"]) -> tuple[Float[ndarray, "d k"], Float[ndarray, " k"]]:
        """Planes about the middle of what was seen first, not all through it."""
        spread: Float[ndarray, " d"] = first.std(axis=0)
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)
        weights = self._rng.normal(size=(first.shape[1], BITS)) * scale[:, None]
        away = np.linalg.norm(scale > 0)
        return weights, self._rng.normal(size=BITS) * away - first.mean(axis=0) @ weights


def grey_cells(seen: Seen) -> Float[ndarray, "n 64"]:
    """Means of 8x8 blocks of the grey frame, 0 to 1; pixels left over at the lower and right border are not counted."""
    n, height, width, _ = seen.frames.shape
    grey = seen.frames[:, : height // 8 * 8, : width // 8 * 8].mean(axis=3) / 255
    blocks = grey.reshape(n, 8, height // 8, 8, width // 8).mean(axis=(2, 4))
    means: Float[ndarray, "n 64"] = blocks.reshape(n, 64)
    return means
