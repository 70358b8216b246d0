"""Blur: an out-of-focus lens, modelled by a Gaussian filter.

At mild levels the Gaussian is narrower than a pixel of a small frame. A filter that samples the Gaussian would then
have a single tap and no effect. Therefore this filter is the Gaussian's discrete analogue (T. Lindeberg, Scale-space
for discrete signals, 1990), which has the right variance at any width.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.ndimage import convolve1d
from scipy.special import ive

from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Blur each frame. The strength is the standard deviation as a share of the shorter side. Borders are reflected."""
    out = np.empty_like(pixels)
    for frame, deviation, slot in zip(pixels, values[:, 0] * min(pixels.shape[1:3]), out, strict=True):
        taps = discrete_gaussian(deviation)
        blurred = convolve1d(convolve1d(frame.astype(np.float32), taps, axis=0), taps, axis=1)
        slot[:] = np.clip(blurred + np.float32(0.5), 0, 255).astype(np.uint8)
    return out


def discrete_gaussian(deviation: float) -> Float[ndarray, " k"]:
    """Return the taps of the filter, which sum to 1, for a standard deviation in pixels."""
    reach = math.ceil(4 * deviation) + 1
    taps = ive(np.arange(-reach, reach + 1), deviation**2)
    found: Float[ndarray, " k"] = taps / taps.sum()
    return found


BLUR = Factor(
    name="blur",
    title="blur",
    unit="standard deviation, of the shorter side",
    family="photometric",
    clean=0.0,
    sides=((0.001, 0.002, 0.004, 0.007, 0.012),),
    apply=on_pixels(change),
)
