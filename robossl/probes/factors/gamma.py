"""Gamma: the exponent of a camera's tone curve."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.probes.factors.colours import LEVELS, apply_table
from robossl.probes.factors.factor import Factor, Values, on_pixels


def change(pixels: UInt8[ndarray, "b h w 3"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Raise pixel values (0 to 1) to a power; a power below 1 brightens the frame."""
    table = LEVELS ** values[:, :1]
    return apply_table(pixels, np.repeat(table[:, None], 3, axis=1))


GAMMA = Factor(
    name="gamma",
    title="gamma",
    unit="exponent",
    family="photometric",
    clean=1.0,
    sides=((0.8, 0.72, 0.65, 0.57, 0.5), (1.25, 1.4, 1.6, 1.9, 2.2)),
    scale="log",
    apply=on_pixels(change),
)
