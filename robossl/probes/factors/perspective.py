"""Perspective: a change of viewpoint, as independent shifts of the four corners of the frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, draw_direction
from robossl.probes.factors.warping import on_warp

_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that move each corner in a random direction, by a share of the frame (the strength)."""
    way = np.stack(draw_direction(values[:, 1:5]), -1)
    return fit_homographies(_CORNERS, _CORNERS + 2 * values[:, :1, None] * way)


def fit_homographies(start: Float[ndarray, "4 2"], end: Float[ndarray, "b 4 2"]) -> Float[ndarray, "b 3 3"]:
    """Return the homographies that move four start points to four end points, by solving eight linear equations."""
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
