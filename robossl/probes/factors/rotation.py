"""Rotation in the picture: the camera rolls."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, both
from robossl.probes.factors.warping import identities, of_pixels, on_warp


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Turn counter-clockwise, as seen, about the middle."""
    return of_pixels(turns(np.deg2rad(values[:, 0])), hw)


def turns(radians: Float[ndarray, " b"]) -> Float[ndarray, "b 3 3"]:
    """Counter-clockwise as seen, in a picture whose y points down."""
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
    sides=both(3, 7, 15, 30, 60),
    base="resampled",
    warp=warp,
    apply=on_warp(warp),
)
