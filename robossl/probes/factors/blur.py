"""Blur: a lens out of focus, as a Gaussian."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Blur by a standard deviation in shares of the shorter side; the border is reflected."""
    out = np.empty_like(pixels)
    for frame, deviation, slot in zip(pixels, values[:, 0] * min(pixels.shape[1:3]), out, strict=True):
        blurred = gaussian_filter(frame.astype(np.float32), deviation, axes=(0, 1))
        slot[:] = (blurred + np.float32(0.5)).astype(np.uint8)
    return out


BLUR = Factor(
    name="blur",
    title="blur",
    unit="standard deviation, of the shorter side",
    family="photometric",
    clean=0.0,
    sides=((0.001, 0.002, 0.004, 0.007, 0.012),),
    apply=on_pixels(change),
)
