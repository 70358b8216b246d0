"""Compute the label T.y of a view (transformed frame) from the label y of the clean frame, or say why T.y is undefined.

If a factor moves points, a homography maps points of the frame to points of the view. Both are in the coordinates of
labels: x right, y down, -1 to 1 over the width and the height. Angles and camera poses need coordinates in square
pixels, so their computation also uses the sizes of frame and view.

The table shows for each type of label (rows) what a factor (columns) does to the label. "none" means that T.y is
undefined.

| label | photometric, scene | rotation, rot90 | hflip | translation, scale, crop | perspective | camera_* | latency |
|---|---|---|---|---|---|---|---|
| class | same | same | same | same | same | same | none |
| class that names sides | same | same; rot90: none | the other side | same | same | same | none |
| point, box | same | moved | moved | moved | moved | moved, as the ground is | none |
| angle | same | turned | mirrored | same | none: depends on the place | turned; tilt: none | none |
| pose | same | composed with Rz | none: no camera sees this | none: no camera gives this | none | none | none |

A camera's axes are x right, y down, z forward. If the content of a picture turns counter-clockwise, the camera has
turned clockwise. This is a positive angle about z, so the new camera-to-world rotation is R Rz(angle).
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
CAMERA = "camera_"  # prefix of the names of factors that move the scene's camera


class ViewLabel(NamedTuple):
    """The label of transformed frames. If it is undefined, `label` is None and `reason` says why.

    Values of points and boxes outside the picture are nan.
    """

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
    """Return the label that frames have after a factor was applied, or why it is undefined.

    Args:
        label: Label of the clean frames.
        factor: Name of the factor.
        family: Family of the factor.
        to_view: Homographies from frames to views (transformed frames); None if the factor moves no point.
        hw: Height and width of the frames, in pixels.
        view_hw: Height and width of the views, if they differ.
        disc: Whether the view is cut to a centred disc, whose diameter is the shorter side of the view.
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
    """Return why a label of this type is undefined after a factor was applied; None if it is defined.

    This function does not check classes that name sides (such as left and right).
    """
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
    """Return the points moved by their homographies; nan for points behind the camera."""
    moved = np.einsum("nij,nj->ni", to_view, np.column_stack([points, np.ones(len(points))]))
    depth = np.where(moved[:, 2] > 0, moved[:, 2], np.nan)
    points_in_view: Float[ndarray, "n 2"] = moved[:, :2] / depth[:, None]
    return points_in_view


def move_boxes(boxes: Float[ndarray, "n 4"], to_view: Float[ndarray, "n 3 3"]) -> Float[ndarray, "n 4"]:
    """Return for each box (x and y of the centre, width, height) the upright box around its moved corners."""
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners = np.stack([move_points(boxes[:, :2] + sign * boxes[:, 2:] / 2, to_view) for sign in signs])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def turn_angles(angles: Float[ndarray, "n 1"], in_pixels: Float[ndarray, "n 2 2"]) -> Float[ndarray, "n 1"]:
    """Apply a linear map to directions; return their new angles, counter-clockwise in the picture, in (-pi, pi]."""
    directions = np.stack([np.cos(angles[:, 0]), -np.sin(angles[:, 0])], axis=1)  # y points down
    moved = np.einsum("nij,nj->ni", in_pixels, directions)
    turned: Float[ndarray, "n 1"] = np.arctan2(-moved[:, 1], moved[:, 0])[:, None]
    return turned


def rolls(in_pixels: Float[ndarray, "n 2 2"]) -> Float[ndarray, " n"]:
    """Return the angle by which each linear map rotates its picture, in radians, counter-clockwise."""
    radians: Float[ndarray, " n"] = np.arctan2(-in_pixels[:, 1, 0], in_pixels[:, 0, 0])
    return radians


def are_rotations(quaternions: Float[ndarray, "n 4"]) -> Bool[ndarray, " n"]:
    """Return which quaternions are rotations. Zeros are not (trackers write zeros if they lose the camera)."""
    valid: Bool[ndarray, " n"] = np.isfinite(quaternions).all(axis=1) & (np.square(quaternions).sum(axis=1) > 1e-12)
    return valid


def roll_poses(poses: Float[ndarray, "n 7"], radians: Float[ndarray, " n"]) -> Float[ndarray, "n 7"]:
    """Return the camera-to-world poses of cameras that would see the rotated pictures; positions do not change."""
    from scipy.spatial.transform import Rotation

    known = np.isfinite(poses).all(axis=1) & are_rotations(poses[:, 3:])
    moved = np.full_like(poses, np.nan, dtype=np.float64)
    turned = Rotation.from_quat(poses[known, 3:]) * Rotation.from_rotvec(np.outer(radians[known], [0, 0, 1]))
    moved[known] = np.concatenate([poses[known, :3], turned.as_quat()], axis=1)
    return moved


def _sides(label: Label, mirrored: tuple[int, ...], factor: str) -> ViewLabel:
    if factor == "rot90":
        return ViewLabel(None, "the classes name sides, which a quarter turn removes")
    if factor != "hflip":
        return ViewLabel(label)
    known = np.isfinite(label.values)
    values = np.where(known, np.array(mirrored)[np.where(known, label.values, 0).astype(np.int64)], np.nan)
    return ViewLabel(replace(label, values=values))


def _in_pixels(
    to_view: Float[ndarray, "n 3 3"], hw: tuple[int, int], view_hw: tuple[int, int]
) -> Float[ndarray, "n 2 2"]:
    """Return the derivative of each homography at the centre of the frame, in pixel coordinates."""
    scale = np.array(view_hw[::-1])[:, None] / np.array(hw[::-1])[None]
    affine = to_view[:, :2, :2] - to_view[:, :2, 2:] * to_view[:, 2:, :2] / to_view[:, 2:, 2:]
    linear: Float[ndarray, "n 2 2"] = affine / to_view[:, 2:, 2:] * scale
    return linear


def seen(points: Float[ndarray, "n 2"], hw: tuple[int, int], *, disc: bool) -> Bool[ndarray, " n"]:
    """Return which points are inside the picture (if `disc`, inside its disc). A point that is nan is outside."""
    if disc:
        in_radii = points * np.array(hw[::-1]) / min(hw)
        inside: Bool[ndarray, " n"] = np.square(in_radii).sum(axis=1) <= 1
        return inside
    within: Bool[ndarray, " n"] = (np.abs(points) <= 1).all(axis=1)
    return within
