"""Brightness: all pixel values are multiplied by one gain."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from robossl.augment import colour
from robossl.probes.factors.colours import jitter_frames
from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Multiply all pixel values by the strength of their frame; clip at white."""
    return jitter_frames(pixels, colour.BRIGHTNESS, values[:, 0])


BRIGHTNESS = Factor(
    name="brightness",
    title="brightness",
    unit="gain",
    family="photometric",
    clean=1.0,
    sides=((0.8, 0.6, 0.45, 0.3, 0.2), (1.25, 1.5, 1.8, 2.1, 2.5)),
    scale="log",
    apply=on_pixels(change),
)
