"""Motion blur: the camera moves evenly along a line while the shutter is open.

Compared with the motion blur of ImageNet-C, the strongest level is between severities 2 and 3, and the third level is
below severity 1. The comparison is by the spread of the kernel. Severity 1 (a one-sided Gaussian) has a spread of 1.8
pixels in a frame of 224 pixels. A line has the same spread if its length is 0.028 of the frame's side.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from scipy.ndimage import convolve

from robossl.probes.factors.factor import Factor, Values, draw_direction, on_pixels

_SAMPLES_PER_PIXEL = 16


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Average pixels along a line in a random direction. The strength is its length as a share of the shorter side."""
    out = np.empty_like(pixels)
    lengths = values[:, 0] * min(pixels.shape[1:3])
    for frame, length, cosine, sine, slot in zip(pixels, lengths, *draw_direction(values[:, 1]), out, strict=True):
        blurred = convolve(frame.astype(np.float32), make_kernel(length, cosine, sine)[..., None])
        slot[:] = np.clip(blurred + np.float32(0.5), 0, 255).astype(np.uint8)
    return out


def make_kernel(length: float, cosine: float, sine: float) -> Float[ndarray, "k k"]:
    """Return a kernel of sum 1: points along a centred line, each of them spread over the four pixels around it."""
    reach = math.ceil(length / 2) + 1
    count = max(1, math.ceil(length * _SAMPLES_PER_PIXEL))
    along = ((np.arange(count) + 0.5) / count - 0.5) * length
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    x, y = reach + along * cosine, reach + along * sine
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for row, down in ((top, top + 1 - y), (top + 1, y - top)):
        for column, right in ((left, left + 1 - x), (left + 1, x - left)):
            np.add.at(kernel, (row, column), down * right / count)
    return kernel


MOTION_BLUR = Factor(
    name="motion_blur",
    title="motion blur",
    unit="length, of the shorter side",
    family="photometric",
    clean=0.0,
    sides=((0.006, 0.012, 0.025, 0.04, 0.06),),
    num_draws=1,
    apply=on_pixels(change),
)
