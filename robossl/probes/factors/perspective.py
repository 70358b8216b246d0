"""Perspective: the camera looks from elsewhere, as each corner of the frame moving by itself."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, direction
from robossl.probes.factors.warping import on_warp

_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Move each corner by a share of the frame in a direction that is drawn for it."""
    way = np.stack(direction(values[:, 1:5]), -1)
    return homographies(_CORNERS, _CORNERS + 2 * values[:, :1, None] * way)


def homographies(start: Float[ndarray, "4 2"], end: Float[ndarray, "b 4 2"]) -> Float[ndarray, "b 3 3"]:
    """The homography that takes four points to four points, by the eight linear equations that they give."""
    rows = np.zeros((len(end), 4, 2, 8))
    homogeneous = np.concatenate([start, np.ones((4, 1))], axis=1)
    rows[:, :, 0, :3] = rows[:, :, 1, 3:6] = homogeneous
    rows[:, :, :, 6:] = -end[..., None] * start[:, None]
    solved = np.linalg.solve(rows.reshape(-1, 8, 8), end.reshape(-1, 8, 1))[..., 0]
    return np.concatenate([solved, np.ones((len(end), 1))], axis=1).reshape(-1, 3, 3)


PERSPECTIVE = Factor(
    name="perspective",
    title="perspective",
    unit="shift of the corners, of the frame",
    family="geometric",
    clean=0.0,
    sides=((0.02, 0.05, 0.1, 0.15, 0.2),),
    num_draws=4,
    base="resampled",
    warp=warp,
    apply=on_warp(warp),
)
