"""What becomes of a label under a view: T.y for every type of label and factor, or why there is none.

A view that moves points is a homography from the frame to the view, both in the coordinates of labels: x right, y down,
-1 to 1 of half the width and half the height. Angles and camera poses live in pixels, which are square where those
coordinates are not, so they need the sizes of frame and view too.

| label | photometric, scene | rotation, rot90 | hflip | translation, scale, crop | perspective | camera_* | latency |
|---|---|---|---|---|---|---|---|
| class | same | same | same | same | same | same | none |
| class that names sides | same | same; rot90: none | the other side | same | same | same | none |
| point, box | same | moved | moved | moved | moved | moved, as the ground is | none |
| angle | same | turned | mirrored | same | none: depends on the place | turned; tilt: none | none |
| pose | same | composed with Rz | none: no camera sees this | none: no camera gives this | none | none | none |

A camera's axes are x right, y down, z forward. A picture whose content turns counter-clockwise is that of a camera
turned clockwise, which is a positive angle about z: the new camera-to-world rotation is R Rz(angle).
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from robossl.probes.frames import Label, LabelType
from robossl.probes.result import Family

ROLLS = ("rotation", "rot90")
TILTS = ("perspective", "camera_perspective")
CAMERA = "camera_"  # factors of the scene that move the camera


class ViewLabel(NamedTuple):
    """Labels under a view, nan where a thing has left it; or None and the reason."""

    label: Label | None
    reason: str | None = None


def move_label(
    label: Label,
    *,
    factor: str,
    family: Family,
    to_view: Float[ndarray, "n 3 3"] | None,
    hw: tuple[int, int],
    view_hw: tuple[int, int] | None = None,
    disc: bool = False,
) -> ViewLabel:
    """Labels of frames under a factor.

    Args:
        label: Of the frames as they are.
        factor: Name of the factor.
        family: Of the factor.
        to_view: Where points go; None for factors that move none.
        hw: Height and width of the frames, in pixels.
        view_hw: Of the views, where it differs.
        disc: Whether the view is cut to the centred disc as wide as its shorter side: outside is nothing to be seen.
    """
    reason = why_none(label.type, factor, family)
    if reason:
        return ViewLabel(None, reason)
    if label.mirrored is not None:
        return _sides(label, label.mirrored, factor)
    if to_view is None or label.type == "class":
        return ViewLabel(label)
    in_pixels = _in_pixels(to_view, hw, view_hw or hw)
    match label.type:
        case "point":
            values = move_points(label.values, to_view)
            values[~seen(values, view_hw or hw, disc=disc)] = np.nan
        case "box":
            values = move_boxes(label.values, to_view)
            values[~seen(values[:, :2], view_hw or hw, disc=disc)] = np.nan
        case "angle":
            values = turn_angles(label.values, in_pixels)
        case "pose":
            values = roll_poses(label.values, rolls(in_pixels))
    return ViewLabel(replace(label, values=values))


def why_none(type: LabelType, factor: str, family: Family) -> str | None:
    """Why a label is not known under a factor; None where it is."""
    if family == "temporal":
        return "it is that of an earlier frame"
    if type == "class":
        return None
    if type == "angle" and factor in TILTS:
        return "how a perspective turns an angle depends on its place"
    if family == "scene" and factor.startswith(CAMERA):
        return "the pose of the scene's moved camera is not known" if type == "pose" else None
    if family != "geometric":
        return None
    if type == "pose" and factor == "hflip":
        return "no camera pose shows the mirrored scene"
    if type == "pose" and factor not in ROLLS:
        return f"no camera pose gives the picture that {factor} gives"
    return None


def move_points(points: Float[ndarray, "n 2"], to_view: Float[ndarray, "n 3 3"]) -> Float[ndarray, "n 2"]:
    """Where points go; nan for those behind the camera."""
    moved = np.einsum("nij,nj->ni", to_view, np.column_stack([points, np.ones(len(points))]))
    depth = np.where(moved[:, 2] > 0, moved[:, 2], np.nan)
    found: Float[ndarray, "n 2"] = moved[:, :2] / depth[:, None]
    return found


def move_boxes(boxes: Float[ndarray, "n 4"], to_view: Float[ndarray, "n 3 3"]) -> Float[ndarray, "n 4"]:
    """The upright box about the moved corners of each box (x and y of its middle, width, height)."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = np.stack([move_points(boxes[:, :2] + sign * boxes[:, 2:] / 2, to_view) for sign in signs])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def turn_angles(angles: Float[ndarray, "n 1"], in_pixels: Float[ndarray, "n 2 2"]) -> Float[ndarray, "n 1"]:
    """Angles, counter-clockwise as seen, of directions moved by a linear map of pixels; in (-pi, pi]."""
    ways = np.stack([np.cos(angles[:, 0]), -np.sin(angles[:, 0])], axis=1)  # y points down
    moved = np.einsum("nij,nj->ni", in_pixels, ways)
    found: Float[ndarray, "n 1"] = np.arctan2(-moved[:, 1], moved[:, 0])[:, None]
    return found


def rolls(in_pixels: Float[ndarray, "n 2 2"]) -> Float[ndarray, " n"]:
    """By how many radians a picture is turned, counter-clockwise as seen."""
    found: Float[ndarray, " n"] = np.arctan2(-in_pixels[:, 1, 0], in_pixels[:, 0, 0])
    return found


def are_rotations(quaternions: Float[ndarray, "n 4"]) -> Bool[ndarray, " n"]:
    """Which are any: some trackers write zeros where they have lost the camera."""
    found: Bool[ndarray, " n"] = np.isfinite(quaternions).all(axis=1) & (np.square(quaternions).sum(axis=1) > 1e-12)
    return found


def roll_poses(poses: Float[ndarray, "n 7"], radians: Float[ndarray, " n"]) -> Float[ndarray, "n 7"]:
    """Camera-to-world poses of the cameras that see the turned pictures; the position stays."""
    from scipy.spatial.transform import Rotation

    known = np.isfinite(poses).all(axis=1) & are_rotations(poses[:, 3:])
    moved = np.full_like(poses, np.nan, dtype=np.float64)
    turned = Rotation.from_quat(poses[known, 3:]) * Rotation.from_rotvec(np.outer(radians[known], [0, 0, 1]))
    moved[known] = np.concatenate([poses[known, :3], turned.as_quat()], axis=1)
    return moved


def _sides(label: Label, mirrored: tuple[int, ...], factor: str) -> ViewLabel:
    if factor == "rot90":
        return ViewLabel(None, "the classes name sides, which a quarter turn takes away")
    if factor != "hflip":
        return ViewLabel(label)
    known = np.isfinite(label.values)
    values = np.where(known, np.array(mirrored)[np.where(known, label.values, 0).astype(np.int64)], np.nan)
    return ViewLabel(replace(label, values=values))


def _in_pixels(
    to_view: Float[ndarray, "n 3 3"], hw: tuple[int, int], view_hw: tuple[int, int]
) -> Float[ndarray, "n 2 2"]:
    """The linear part at the middle of the frame, from pixels to pixels."""
    scale = np.array(view_hw[::-1])[:, None] / np.array(hw[::-1])[None]
    affine = to_view[:, :2, :2] - to_view[:, :2, 2:] * to_view[:, 2:, :2] / to_view[:, 2:, 2:]
    found: Float[ndarray, "n 2 2"] = affine / to_view[:, 2:, 2:] * scale
    return found


def seen(points: Float[ndarray, "n 2"], hw: tuple[int, int], *, disc: bool) -> Bool[ndarray, " n"]:
    """Whether points lie in a view, or in the disc it is cut to; nan does not."""
    if disc:
        in_radii = points * np.array(hw[::-1]) / min(hw)
        inside: Bool[ndarray, " n"] = np.square(in_radii).sum(axis=1) <= 1
        return inside
    within: Bool[ndarray, " n"] = (np.abs(points) <= 1).all(axis=1)
    return within
