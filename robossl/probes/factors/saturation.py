"""Saturation: colours move towards grey."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from robossl.augment import colour
from robossl.probes.factors.colours import jitter_frames
from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Scale the difference between the channels of each pixel and its luma."""
    return jitter_frames(pixels, colour.SATURATION, values[:, 0])


SATURATION = Factor(
    name="saturation",
    title="saturation",
    unit="share of the saturation",
    family="photometric",
    clean=1.0,
    sides=((0.8, 0.5, 0.25, 0.1, 0.0),),
    apply=on_pixels(change),
)
