"""Factors that change the scene itself; only a source that can render its scenes again supports them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.probes.factors.factor import Factor, Values
from robossl.probes.frames import ProbeFrames


def _make_factor(name: str, title: str) -> Factor:
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


LIGHT_DIRECTION = _make_factor("light_direction", "light direction")
LIGHT_COLOR = _make_factor("light_color", "light colour")
TABLE_COLOR = _make_factor("table_color", "table colour")
TABLE_TEXTURE = _make_factor("table_texture", "table texture")
MANIP_OBJECT_COLOR = _make_factor("manip_object_color", "colour of the moved object")
MANIP_OBJECT_TEXTURE = _make_factor("manip_object_texture", "texture of the moved object")
RECEIVER_OBJECT_COLOR = _make_factor("receiver_object_color", "colour of the target")
DISTRACTORS = _make_factor("distractors", "distractors")
CAMERA_SHIFT = _make_factor("camera_shift", "camera shift")
CAMERA_ROTATION = _make_factor("camera_rotation", "camera roll")
CAMERA_ZOOM = _make_factor("camera_zoom", "camera zoom")
CAMERA_PERSPECTIVE = _make_factor("camera_perspective", "camera tilt")
