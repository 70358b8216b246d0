"""Factors of the scene itself: only a source that can build its scenes again shows them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.frames import ProbeFrames


def _factor(name: str, title: str) -> Factor:
    def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        out = np.empty((len(at), *frames.hw, 3), np.uint8)
        for strength in np.unique(values[:, 0]):
            chosen = values[:, 0] == strength
            out[chosen] = frames.scene(at[chosen], name, int(strength))
        return out

    return Factor(
        name=name,
        title=title,
        unit="strength of the environment's factor",
        family="scene",
        clean=0.0,
        sides=((1, 2, 3, 4, 5),),
        apply=apply,
    )


LIGHT_DIRECTION = _factor("light_direction", "light direction")
LIGHT_COLOR = _factor("light_color", "light colour")
TABLE_COLOR = _factor("table_color", "table colour")
TABLE_TEXTURE = _factor("table_texture", "table texture")
MANIP_OBJECT_COLOR = _factor("manip_object_color", "colour of what is moved")
MANIP_OBJECT_TEXTURE = _factor("manip_object_texture", "texture of what is moved")
RECEIVER_OBJECT_COLOR = _factor("receiver_object_color", "colour of the target")
DISTRACTORS = _factor("distractors", "distractors")
CAMERA_SHIFT = _factor("camera_shift", "camera shift")
CAMERA_ROTATION = _factor("camera_rotation", "camera roll")
CAMERA_ZOOM = _factor("camera_zoom", "camera zoom")
CAMERA_PERSPECTIVE = _factor("camera_perspective", "camera tilt")
