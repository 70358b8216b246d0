"""Horizontal flip: a frame becomes its exact mirror image, without resampling."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, on_pixels
from robossl.probes.factors.warping import identities


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Mirror the frames whose strength is 1."""
    return np.where(values[:, 0, None, None, None] > 0, pixels[:, :, ::-1], pixels)


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return homographies that change the sign of x for the mirrored frames."""
    matrix = identities(len(values))
    matrix[:, 0, 0] = 1 - 2 * values[:, 0]
    return matrix


HFLIP = Factor(
    name="hflip",
    title="horizontal flip",
    unit="flips",
    family="geometric",
    clean=0.0,
    sides=((1,),),
    classes=("as it is", "flipped"),
    base="disc",
    warp=warp,
    apply=on_pixels(change),
)
