"""Scale: the picture grows or shrinks, as if the camera moved forwards or back."""

from __future__ import annotations

from jaxtyping import Float
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.factors.warping import identities, on_warp


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that magnify the picture around its centre."""
    matrix = identities(len(values))
    matrix[:, 0, 0] = matrix[:, 1, 1] = values[:, 0]
    return matrix


SCALE = Factor(
    name="scale",
    title="scale",
    unit="magnification",
    family="geometric",
    clean=1.0,
    sides=((0.95, 0.87, 0.75, 0.67, 0.6), (1.05, 1.15, 1.3, 1.45, 1.6)),
    scale="log",
    base="resampled",
    warp=warp,
    apply=on_warp(warp),
)
