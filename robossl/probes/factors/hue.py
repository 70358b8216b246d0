"""Hue: all colours turn by the same angle on the colour wheel."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from robossl.augment import colour
from robossl.probes.factors.colours import jitter_frames
from robossl.probes.factors.factor import Factor, Values, mirror_strengths, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Turn the hue of each pixel in HSV."""
    return jitter_frames(pixels, colour.HUE, values[:, 0])


HUE = Factor(
    name="hue",
    title="hue",
    unit="turns",
    family="photometric",
    clean=0.0,
    sides=mirror_strengths(0.02, 0.05, 0.1, 0.2, 0.35),
    apply=on_pixels(change),
)
