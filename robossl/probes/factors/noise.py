"""Sensor noise: Gaussian, independent for every pixel and channel."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Add noise and clip. The strength is the standard deviation of the noise, as a share of white."""
    out = np.empty_like(pixels)
    for frame, (deviation, drawn), slot in zip(pixels, values, out, strict=True):
        noise = np.random.default_rng(int(drawn * 2**53)).standard_normal(frame.shape, np.float32)
        slot[:] = np.clip(frame + noise * np.float32(255 * deviation) + np.float32(0.5), 0, 255).astype(np.uint8)
    return out


# Weak noise, which should hardly change the features. The health check uses it, but it is not in FACTORS.
FLOOR = Factor(
    name="floor",
    title="one grey level of noise",
    unit="standard deviation, of white",
    family="photometric",
    clean=0.0,
    sides=((1 / 255,),),
    num_draws=1,
    apply=on_pixels(change),
)
NOISE = Factor(
    name="noise",
    title="noise",
    unit="standard deviation, of white",
    family="photometric",
    clean=0.0,
    sides=((0.01, 0.03, 0.06, 0.12, 0.18),),
    num_draws=1,
    apply=on_pixels(change),
)
