"""JPEG: the quality that a camera stream loses by compression."""

from __future__ import annotations

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, on_pixels

UNTOUCHED = 101.0  # the best quality is 100; 101 stands for no compression


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Compress each frame at its quality, with colours at half the resolution, and decode it."""
    out = np.empty_like(pixels)
    for frame, quality, slot in zip(np.ascontiguousarray(pixels), values[:, 0], out, strict=True):
        packed = simplejpeg.encode_jpeg(frame, quality=int(quality), colorspace="RGB", colorsubsampling="420")
        simplejpeg.decode_jpeg(packed, "RGB", buffer=slot)
    return out


JPEG = Factor(
    name="jpeg",
    title="JPEG",
    unit="quality",
    family="photometric",
    clean=UNTOUCHED,
    sides=((70, 50, 35, 18, 15),),
    apply=on_pixels(change),
)
