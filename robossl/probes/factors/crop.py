"""Crop: a part of the frame is enlarged to the size of the whole frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.factors.warping import identities, on_warp


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that enlarge a random part of each frame.

    The strength is the area of the part as a share of the frame's area. The part has the aspect ratio of the frame.
    """
    share = np.sqrt(values[:, :1])
    middle = (2 * values[:, 1:3] - 1) * (1 - share)
    matrix = identities(len(values))
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / share[:, 0]
    matrix[:, :2, 2] = -middle / share
    return matrix


CROP = Factor(
    name="crop",
    title="crop",
    unit="share of the area",
    family="geometric",
    clean=1.0,
    sides=((0.9, 0.75, 0.6, 0.45, 0.3),),
    num_draws=2,
    base="resampled",
    warp=warp,
    apply=on_warp(warp),
)
