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
"""Light direction: the light turns about the table, by 15 to 180 degrees at strengths 1 to 5."""
LIGHT_COLOR = _make_factor("light_color", "light colour")
"""Light colour: the colour temperature of the light, 5500 to 2700 or 7500 to 20000 K at strengths 1 to 5."""
TABLE_COLOR = _make_factor("table_color", "table colour")
"""Table colour: the hue of the table turns, by 0.03 to 0.4 of the colour wheel at strengths 1 to 5."""
TABLE_TEXTURE = _make_factor("table_texture", "table texture")
"""Table texture: another texture replaces the table's, by a share of 0.2 to 1 at strengths 1 to 5."""
MANIP_OBJECT_COLOR = _make_factor("manip_object_color", "colour of the moved object")
"""Object colour: the hue of the moved object turns, by 0.02 to 0.35 of the wheel at strengths 1 to 5."""
MANIP_OBJECT_TEXTURE = _make_factor("manip_object_texture", "texture of the moved object")
"""Object texture: the moved object gets a texture, of a contrast of 0.2 to 1 at strengths 1 to 5."""
RECEIVER_OBJECT_COLOR = _make_factor("receiver_object_color", "colour of the target")
"""Target colour: the hue of the target turns, by 0.02 to 0.35 of the colour wheel at strengths 1 to 5."""
DISTRACTORS = _make_factor("distractors", "distractors")
"""Distractors: objects that do not matter lie beside the workspace, 1 to 8 objects at strengths 1 to 5."""
CAMERA_SHIFT = _make_factor("camera_shift", "camera shift")
"""Camera shift: the camera moves in a random direction, by 0.02 to 0.16 of its view at strengths 1 to 5."""
CAMERA_ROTATION = _make_factor("camera_rotation", "camera roll")
"""Camera roll: the camera turns about its axis, by 3 to 60 degrees at strengths 1 to 5."""
CAMERA_ZOOM = _make_factor("camera_zoom", "camera zoom")
"""Camera zoom: the magnification of the camera, 0.95 to 0.6 or 1.05 to 1.6 times at strengths 1 to 5."""
CAMERA_PERSPECTIVE = _make_factor("camera_perspective", "camera tilt")
"""Camera tilt: the corners of the picture shift, by 0.02 to 0.2 of the view at strengths 1 to 5."""
