"""Rotation of the picture, as if the camera rolled."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, mirror_strengths
from robossl.probes.factors.warping import identities, on_warp, scale_homographies


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that turn the picture around its centre, counter-clockwise as the viewer sees it."""
    return scale_homographies(make_rotations(np.deg2rad(values[:, 0])), hw)


def make_rotations(radians: Float[ndarray, " b"]) -> Float[ndarray, "b 3 3"]:
    """Return rotation matrices for coordinates whose y points down; the viewer sees a counter-clockwise turn."""
    matrix = identities(len(radians))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(radians)
    matrix[:, 0, 1], matrix[:, 1, 0] = np.sin(radians), -np.sin(radians)
    return matrix


ROTATION = Factor(
    name="rotation",
    title="rotation",
    unit="degrees, counter-clockwise",
    family="geometric",
    clean=0.0,
    sides=mirror_strengths(3, 7, 15, 30, 60),
    base="resampled",
    warp=warp,
    apply=on_warp(warp),
)
