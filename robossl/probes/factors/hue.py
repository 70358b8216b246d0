"""Hue: every colour turned by the same way round the circle."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from robossl import colour
from robossl.probes.factors.colours import jittered
from robossl.probes.factors.factor import Factor, Values, both, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Turn the hue of HSV."""
    return jittered(pixels, colour.HUE, values[:, 0])


HUE = Factor(
    name="hue",
    title="hue",
    unit="turns",
    family="photometric",
    clean=0.0,
    sides=both(0.02, 0.05, 0.1, 0.2, 0.35),
    apply=on_pixels(change),
)
