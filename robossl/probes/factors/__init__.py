"""FACTORS: the factors (changes of a frame) that probes measure, by name. This module does not import torch."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from robossl.common.plugins import Registry

if TYPE_CHECKING:
    from robossl.probes.factors.factor import Factor


def _check(found: Any) -> str:
    from robossl.probes.factor_checks import why_wrong
    from robossl.probes.factors.factor import Factor

    if not isinstance(found, Factor):
        return "must be a Factor (robossl.probes.factors.factor)"
    return why_wrong(found)


FACTORS = Registry(
    "factor",
    group="robossl.factors",
    check=_check,
    built_in={
        "brightness": "robossl.probes.factors.brightness:BRIGHTNESS",
        "gamma": "robossl.probes.factors.gamma:GAMMA",
        "contrast": "robossl.probes.factors.contrast:CONTRAST",
        "hue": "robossl.probes.factors.hue:HUE",
        "saturation": "robossl.probes.factors.saturation:SATURATION",
        "white_balance": "robossl.probes.factors.white_balance:WHITE_BALANCE",
        "noise": "robossl.probes.factors.noise:NOISE",
        "blur": "robossl.probes.factors.blur:BLUR",
        "motion_blur": "robossl.probes.factors.motion_blur:MOTION_BLUR",
        "jpeg": "robossl.probes.factors.jpeg:JPEG",
        "shadow": "robossl.probes.factors.shadow:SHADOW",
        "rotation": "robossl.probes.factors.rotation:ROTATION",
        "rot90": "robossl.probes.factors.rot90:ROT90",
        "translation": "robossl.probes.factors.translation:TRANSLATION",
        "scale": "robossl.probes.factors.scale:SCALE",
        "hflip": "robossl.probes.factors.hflip:HFLIP",
        "crop": "robossl.probes.factors.crop:CROP",
        "perspective": "robossl.probes.factors.perspective:PERSPECTIVE",
        "occlusion": "robossl.probes.factors.occlusion:OCCLUSION",
        "light_direction": "robossl.probes.factors.scene:LIGHT_DIRECTION",
        "light_color": "robossl.probes.factors.scene:LIGHT_COLOR",
        "table_color": "robossl.probes.factors.scene:TABLE_COLOR",
        "table_texture": "robossl.probes.factors.scene:TABLE_TEXTURE",
        "manip_object_color": "robossl.probes.factors.scene:MANIP_OBJECT_COLOR",
        "manip_object_texture": "robossl.probes.factors.scene:MANIP_OBJECT_TEXTURE",
        "receiver_object_color": "robossl.probes.factors.scene:RECEIVER_OBJECT_COLOR",
        "distractors": "robossl.probes.factors.scene:DISTRACTORS",
        "camera_shift": "robossl.probes.factors.scene:CAMERA_SHIFT",
        "camera_rotation": "robossl.probes.factors.scene:CAMERA_ROTATION",
        "camera_zoom": "robossl.probes.factors.scene:CAMERA_ZOOM",
        "camera_perspective": "robossl.probes.factors.scene:CAMERA_PERSPECTIVE",
        "latency": "robossl.probes.factors.latency:LATENCY",
    },
)
FLOOR = "robossl.probes.factors.noise:FLOOR"


@cache
def resolve_factor(name: str) -> Factor:
    """Return the factor with this name. The name "floor" is allowed too, although it is not in FACTORS.

    If the factor comes from a plugin and its own name differs, return a copy whose name is `name`.

    Raises:
        InputError: no factor has that name, or its plugin cannot be used.
    """
    found: Factor = pkgutil.resolve_name(FLOOR) if name == "floor" else FACTORS.resolve(name)
    return found if found.name == name else replace(found, name=name)
