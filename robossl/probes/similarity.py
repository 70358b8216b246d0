"""Measure how similar the pixels of two pictures are: peak signal-to-noise ratio and structural similarity."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray
from scipy.ndimage import gaussian_filter

_LUMA = np.array([0.299, 0.587, 0.114])
# Standard deviation and radius, in pixels, of the Gaussian window (11 x 11) of Wang et al. (2004).
_SIGMA, _REACH = 1.5, 5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(a: UInt8[ndarray, "b h w 3"], b: UInt8[ndarray, "b h w 3"], num_pixels: int) -> Float[ndarray, " b"]:
    """Return the peak signal-to-noise ratio of each pair of pictures, in dB; infinite for equal pictures.

    The squared error is averaged over `num_pixels` pixels. If the pictures are cut to a disc, pass the number of pixels
    inside the disc.
    """
    difference = (a.astype(np.float32) - b).reshape(len(a), -1)
    squares = np.square(difference).sum(1, dtype=np.float64) / (3 * num_pixels)
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / squares))


def ssim(
    a: UInt8[ndarray, "b h w 3"], b: UInt8[ndarray, "b h w 3"], inside: Bool[ndarray, "h w"]
) -> Float[ndarray, " b"]:
    """Return the structural similarity of the luma of each pair of pictures (Wang et al. 2004, Gaussian window).

    The result is the mean over the pixels of `inside` whose window does not leave the picture.
    """
    middle = inside[_REACH:-_REACH, _REACH:-_REACH]
    return np.array([_ssim(x @ _LUMA, y @ _LUMA)[middle].mean() for x, y in zip(a, b, strict=True)])


def _ssim(x: Float[ndarray, "h w"], y: Float[ndarray, "h w"]) -> Float[ndarray, "i j"]:
    mx, my = _windows(x), _windows(y)
    vx, vy, cov = _windows(x * x) - mx * mx, _windows(y * y) - my * my, _windows(x * y) - mx * my
    return np.asarray((2 * mx * my + _C1) * (2 * cov + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2)))


def _windows(x: Float[ndarray, "h w"]) -> Float[ndarray, "i j"]:
    means: Float[ndarray, "i j"] = gaussian_filter(x, _SIGMA, radius=_REACH)[_REACH:-_REACH, _REACH:-_REACH]
    return means
