"""Quarter turns of the centred square; they are exact, because no pixel is mixed with another."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.factors.rotation import make_rotations
from robossl.probes.factors.warping import crop_square
from robossl.probes.frames import ProbeFrames


def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b s s 3"]:
    """Cut out the centred square and turn it, counter-clockwise as the viewer sees it."""
    pixels = crop_square(frames.clean(at))
    return np.stack([np.rot90(frame, int(degrees) // 90) for frame, degrees in zip(pixels, values[:, 0], strict=True)])


def warp(values: Values, hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Return the homography from the whole frame to the turned square."""
    side = min(hw)
    to_square = np.diag([hw[1] / side, hw[0] / side, 1.0])
    # If the margin beside the square has an odd number of pixels, the square lies half a pixel off the centre.
    to_square[:2, 2] = [(hw[1] - side) % 2 / side, (hw[0] - side) % 2 / side]
    found: Float[ndarray, "b 3 3"] = make_rotations(np.deg2rad(values[:, 0])) @ to_square
    return found


ROT90 = Factor(
    name="rot90",
    title="quarter turns",
    unit="degrees, counter-clockwise",
    family="geometric",
    clean=0.0,
    sides=((90, 180, 270),),
    classes=("0", "90", "180", "270"),
    base="square",
    warp=warp,
    apply=apply,
)
