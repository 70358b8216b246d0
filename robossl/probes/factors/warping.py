"""Warp frames by homographies without a visible border, and cut them to a disc.

Beyond its border a frame continues as its mirror image. Every pixel is the mean of four bilinear samples. This also
holds for frames that are not moved, so that sharpness reveals less about whether a frame was moved. Pixels outside the
disc are grey.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8
from numpy import ndarray
from torch.nn import functional

from robossl.probes.factors.factor import Apply, Values, Warp
from robossl.probes.frames import ProbeFrames

OUTSIDE = 127  # grey level of the pixels outside the disc


def on_warp(warp: Warp) -> Apply:
    """Return the `apply` of a factor that moves the pixels by the homographies of `warp`."""

    def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        return warp_frames(frames.clean(at), warp(values, frames.hw))

    return apply


def warp_frames(pixels: UInt8[ndarray, "b h w 3"], to_view: Float[ndarray, "b 3 3"]) -> UInt8[ndarray, "b h w 3"]:
    """Move the points of each frame by its homography, in coordinates of -1 to 1 (x right, y down).

    Only the square around the disc is computed. Other pixels are black.
    """
    height, width = pixels.shape[1:3]
    side = min(height, width)
    rows, columns = (slice((size - side) // 2, (size + side + 1) // 2) for size in (height, width))
    points = _fine_grid((height, width), rows.start, rows.stop, columns.start, columns.stop)
    fine_hw = 2 * (rows.stop - rows.start), 2 * (columns.stop - columns.start)
    out = np.zeros_like(pixels)
    for frame, matrix, slot in zip(pixels, np.linalg.inv(to_view), out, strict=True):
        moved = points @ matrix.T.astype(np.float32)
        grid = torch.from_numpy(moved[:, :2] / moved[:, 2:]).view(1, *fine_hw, 2)
        planes = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].float()
        fine = functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
        slot[rows, columns] = functional.avg_pool2d(fine, 2)[0].round_().to(torch.uint8).permute(1, 2, 0).numpy()
    return out


@cache
def _fine_grid(hw: tuple[int, int], top: int, bottom: int, left: int, right: int) -> Float32[ndarray, "p 3"]:
    """Return four sample points for every pixel of a window, in homogeneous coordinates from -1 to 1."""
    v, u = (
        (np.arange(2 * start, 2 * stop) + 0.5) / size - 1
        for start, stop, size in ((top, bottom, hw[0]), (left, right, hw[1]))
    )
    points = np.stack([np.tile(u, len(v)), np.repeat(v, len(u)), np.ones(len(u) * len(v))], 1)
    return points.astype(np.float32)


def scale_homographies(matrix: Float[ndarray, "b 3 3"], hw: tuple[int, int]) -> Float[ndarray, "b 3 3"]:
    """Convert homographies from coordinates in pixels, with the origin at the centre, to coordinates of -1 to 1."""
    half = np.diag([hw[1] / 2, hw[0] / 2, 1.0])
    found: Float[ndarray, "b 3 3"] = np.linalg.inv(half) @ matrix @ half
    return found


def identities(num_frames: int) -> Float[ndarray, "b 3 3"]:
    """Return an identity matrix for each frame, in a new array that the caller may change."""
    return np.tile(np.eye(3), (num_frames, 1, 1))


@cache
def make_disc(hw: tuple[int, int]) -> Bool[ndarray, "h w"]:
    """Return the mask of a centred disc as wide as the shorter side."""
    y, x = (np.arange(size) - (size - 1) / 2 for size in hw)
    found: Bool[ndarray, "h w"] = y[:, None] ** 2 + x**2 <= (min(hw) / 2) ** 2
    return found


def mask_outside_disc(pixels: UInt8[ndarray, "b h w 3"]) -> UInt8[ndarray, "b h w 3"]:
    """Return the frames with grey pixels outside the centred disc."""
    height, width = pixels.shape[1:3]
    inside = make_disc((height, width))[:, :, None]
    return np.where(inside, pixels, np.uint8(OUTSIDE))


def crop_square(pixels: UInt8[ndarray, "b h w 3"]) -> UInt8[ndarray, "b s s 3"]:
    """Return the largest centred square of each frame."""
    height, width = pixels.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[:, top : top + side, left : left + side]
