"""Translation: the picture is shifted."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, both, direction
from robossl.probes.factors.warping import identities, of_pixels, on_warp


def way(values: Values) -> Float[ndarray, "b 2"]:
    """How far to the right and down, in shares of the shorter side."""
    return np.asarray(values[:, :1] * np.stack(direction(values[:, 1]), 1))


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Shift by a share of the shorter side in a direction that is drawn."""
    matrix = identities(len(values))
    matrix[:, :2, 2] = way(values) * min(hw)
    return of_pixels(matrix, hw)


TRANSLATION = Factor(
    name="translation",
    title="translation",
    unit="of the shorter side",
    family="geometric",
    clean=0.0,
    sides=both(0.02, 0.04, 0.08, 0.12, 0.16),
    base="resampled",
    num_draws=1,
    warp=warp,
    apply=on_warp(warp),
    target=way,
)
