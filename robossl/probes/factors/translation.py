"""Translation: the picture shifts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, draw_direction, mirror_strengths
from robossl.probes.factors.warping import identities, on_warp, scale_homographies


def shift(values: Values) -> Float[ndarray, "b 2"]:
    """Return the shift to the right and down, in shares of the shorter side."""
    return np.asarray(values[:, :1] * np.stack(draw_direction(values[:, 1]), 1))


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that shift the picture in a random direction, by a share of the shorter side."""
    matrix = identities(len(values))
    matrix[:, :2, 2] = shift(values) * min(hw)
    return scale_homographies(matrix, hw)


TRANSLATION = Factor(
    name="translation",
    title="translation",
    unit="of the shorter side",
    family="geometric",
    clean=0.0,
    sides=mirror_strengths(0.02, 0.04, 0.08, 0.12, 0.16),
    base="resampled",
    num_draws=1,
    warp=warp,
    apply=on_warp(warp),
    target=shift,
)
