"""Contrast: pixel values move towards the mean luma of the frame."""

from __future__ import annotations

from jaxtyping import UInt8
from numpy import ndarray

from robossl.augment import colour
from robossl.probes.factors.colours import jitter_frames
from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Scale the difference between pixel values and the mean luma of their frame."""
    return jitter_frames(pixels, colour.CONTRAST, values[:, 0])


CONTRAST = Factor(
    name="contrast",
    title="contrast",
    unit="share of the contrast",
    family="photometric",
    clean=1.0,
    sides=((0.8, 0.6, 0.45, 0.3, 0.2),),
    apply=on_pixels(change),
)
