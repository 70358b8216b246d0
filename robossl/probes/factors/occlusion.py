"""Occlusion: an object of one colour between camera and scene."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Cover a rectangle of random place, colour and shape (1:2 to 2:1). The strength is the share that is covered."""
    height, width = pixels.shape[1:3]
    out = pixels.copy()
    for slot, (share, shape, down, along, *colour) in zip(out, values, strict=True):
        ratio = 2 ** (2 * shape - 1)
        tall = min(height, round(np.sqrt(share * ratio) * height))
        wide = min(width, round(share * height * width / max(tall, 1)))
        top, left = int(down * (height - tall + 1)), int(along * (width - wide + 1))
        slot[top : top + tall, left : left + wide] = (np.array(colour) * 256).astype(np.uint8)
    return out


OCCLUSION = Factor(
    name="occlusion",
    title="occlusion",
    unit="share of the frame",
    family="scene",
    clean=0.0,
    sides=((0.02, 0.05, 0.1, 0.2, 0.35),),
    num_draws=6,
    apply=on_pixels(change),
)
