"""Group similar observations into cells by hashing, as in #Exploration (arXiv:1611.04717), section 2.2.

`BITS` random planes divide the space of state vectors. The cell number of an observation has one bit for each plane,
which says on which side of the plane the state vector lies. If the environment has no state, the mean grey values of an
8x8 grid of blocks in the frame are used instead. There are always `NUM_CELLS` cells, for any number of dimensions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import AgentObservations

# Number of planes; 8 to 12 were tried. With 8, agents visited the largest part of robossl/Push-v0 in 10^4 frames.
BITS = 8
NUM_CELLS = 2**BITS
WARM_UP = 256  # number of observations to collect before the planes are drawn


class CellHasher:
    """Maps each observation to a cell; returns cell 0 until it has seen `WARM_UP` observations."""

    def __init__(self, rng: Generator) -> None:
        self._rng = rng
        self._first: list[Float[ndarray, " d"]] = []
        self._planes: tuple[Float[ndarray, "d k"], Float[ndarray, " k"]] | None = None

    def __call__(self, observations: AgentObservations) -> Int64[ndarray, " n"]:
        """Return the cell of each row of the observations."""
        views = (
            observations.states.astype(np.float64) if observations.states.shape[1] else grey_block_means(observations)
        )
        if self._planes is None:
            self._first.extend(views)
            if len(self._first) < WARM_UP:
                return np.zeros(len(views), np.int64)
            self._planes = self._draw(np.stack(self._first))
        weights, offsets = self._planes
        cells: Int64[ndarray, " n"] = (views @ weights + offsets > 0) @ (1 << np.arange(BITS))
        return cells

    def _draw(self, first: Float[ndarray, "n d"]) -> tuple[Float[ndarray, "d k"], Float[ndarray, " k"]]:
        """Draw random planes that pass near the mean of the first observations; return the planes' weights and offsets.

        Each dimension is scaled by its standard deviation over these observations.
        """
        spread: Float[ndarray, " d"] = first.std(axis=0)
        scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)
        weights = self._rng.normal(size=(first.shape[1], BITS)) * scale[:, None]
        away = np.linalg.norm(scale > 0)
        return weights, self._rng.normal(size=BITS) * away - first.mean(axis=0) @ weights


def grey_block_means(observations: AgentObservations) -> Float[ndarray, "n 64"]:
    """Return the mean grey value (0 to 1) of each block in an 8x8 grid.

    If a side of the frame is not divisible by 8, ignore the remaining pixels at the right and bottom.
    """
    n, height, width, _ = observations.frames.shape
    grey = observations.frames[:, : height // 8 * 8, : width // 8 * 8].mean(axis=3) / 255
    blocks = grey.reshape(n, 8, height // 8, 8, width // 8).mean(axis=(2, 4))
    means: Float[ndarray, "n 64"] = blocks.reshape(n, 64)
    return means
