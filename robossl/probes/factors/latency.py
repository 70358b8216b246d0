"""Latency: the encoder gets an older frame instead of the present one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.frames import ProbeFrames


def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """Return older frames. The strength says how many frames earlier the camera took them."""
    out = np.empty((len(at), *frames.hw, 3), np.uint8)
    for age in np.unique(values[:, 0]):
        chosen = values[:, 0] == age
        out[chosen] = frames.earlier(at[chosen], int(age))
    return out


LATENCY = Factor(
    name="latency",
    title="latency",
    unit="frames",
    family="temporal",
    clean=0.0,
    sides=((1, 2, 3, 5, 8),),
    apply=apply,
)
