"""Shadow: a dark band with a soft border across the frame."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values, draw_direction, on_pixels

WIDTH, BORDER = 0.35, 0.08  # width of the band and of its soft border, as shares of the frame's shorter side


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Darken a band of random direction and place. The strength is the share of the light that is lost.

    The middle of the band is at most a quarter of the shorter side away from the frame's centre.
    """
    height, width = pixels.shape[1:3]
    side = min(height, width)
    y, x = ((np.arange(size) + 0.5 - size / 2) / side for size in (height, width))
    out = np.empty_like(pixels)
    for frame, (depth, _, offset), cosine, sine, slot in zip(
        pixels, values, *draw_direction(values[:, 1]), out, strict=True
    ):
        across = np.abs(x * cosine + y[:, None] * sine - (offset - 0.5) / 2)
        dark = np.clip((WIDTH / 2 - across) / BORDER + 0.5, 0, 1)
        slot[:] = (frame * (1 - depth * dark[..., None]) + 0.5).astype(np.uint8)
    return out


SHADOW = Factor(
    name="shadow",
    title="cast shadow",
    unit="share of the light that is lost",
    family="photometric",
    clean=0.0,
    sides=((0.2, 0.35, 0.5, 0.6, 0.7),),
    num_draws=2,
    apply=on_pixels(change),
)
