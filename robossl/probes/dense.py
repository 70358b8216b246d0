"""Measure whether a feature map moves with the frame: PCK under a known warp, and drift of soft-argmax keypoints.

A feature map has a feature vector for each cell of a grid. For each cell in the map of the clean frame, find the most
similar cell in the map of the transformed frame. PCK is the share of cells for which the found cell is at the right
place. The warp (the known motion of points) says which place is right, so no labels are needed. Pooled features have no
places, so they cannot show equivariance. Coordinates are those of labels: x right, y down, -1 to 1. Distances are in
pixels of the frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.figures import Draws, Figure, mean, missing
from robossl.probes.invariance import TIE
from robossl.probes.label_maps import move_points, seen

# A function that maps points of one frame to points of its view (the transformed frame).
Warp = Callable[[Float[ndarray, "p 2"]], Float[ndarray, "p 2"]]
ALPHA = 0.1  # largest distance of a correct match, as a share of the larger side of the transformed frame
# Minimum spread of keypoints; the unit is half a side of the frame. Keypoints in one place say nothing about motion.
LEAST_KEYPOINT_SPREAD = 0.05


def by_homography(to_view: Float[ndarray, "3 3"]) -> Warp:
    """Return the warp (function that moves points) that applies this homography."""
    return lambda points: move_points(points, np.broadcast_to(to_view, (len(points), 3, 3)))


def pck(
    clean: Float[ndarray, "n c h w"],
    moved: Float[ndarray, "n c h w"],
    warps: list[Warp],
    draws: Draws,
    *,
    view_hw: tuple[int, int],
    disc: bool = False,
    alpha: float = ALPHA,
) -> Figure:
    """Return PCK: the share of cells of the clean map whose most similar cell of the moved map is at the right place.

    Args:
        clean: Feature maps of the clean frames.
        moved: Feature maps of the views (transformed frames).
        warps: The warp of each frame. Cells that leave the view do not count.
        draws: Bootstrap resamples of the clusters (such as episodes) of these frames.
        view_hw: Height and width of the views, in pixels.
        disc: Whether the views are cut to a disc. Cells outside the disc do not count.
        alpha: Largest distance of a correct match, as a share of the larger side of the view. The allowed distance is
            at least half a cell's diagonal, because a coarse map does not resolve places within a cell.
    """
    if not (np.isfinite(clean).all() and np.isfinite(moved).all()):
        return missing("the features are not finite", n=len(clean), clusters=draws.weights.shape[1])
    start, end = cell_centres(clean.shape[2:]), cell_centres(moved.shape[2:])
    half = np.array(view_hw[::-1]) / 2
    near = max(alpha * max(view_hw), float(np.linalg.norm(half / np.array(moved.shape[:1:-1]))))
    shares = np.full(len(clean), np.nan)
    for i, warp in enumerate(warps):
        truth = warp(start)
        stays = seen(start, view_hw, disc=disc) & seen(truth, view_hw, disc=disc)
        if stays.any():
            matches, is_unique = _matches(clean[i], moved[i])
            error = np.linalg.norm((end[matches] - truth) * half, axis=1)
            shares[i] = ((error <= near) & is_unique)[stays].mean()
    return draws.figure(shares, mean, limits=(0, 1))


def keypoint_drift(
    clean: Float[ndarray, "n k 2"],
    moved: Float[ndarray, "n k 2"],
    warps: list[Warp],
    draws: Draws,
    *,
    view_hw: tuple[int, int],
) -> Figure:
    """Return the mean distance in pixels between keypoints of transformed frames and warped keypoints of clean frames.

    Each channel has one keypoint. Keypoints that the warp moves out of the frame do not count. If all keypoints lie
    in one place, as on a flat map, the result has a reason instead of a value.
    """
    reason = None if np.isfinite(clean).all() and np.isfinite(moved).all() else "the features are not finite"
    if reason is None and np.sqrt(np.square(clean - clean.mean(axis=(0, 1))).mean()) < LEAST_KEYPOINT_SPREAD:
        reason = "the keypoints of all channels lie in one place: the map is flat"
    if reason:
        return missing(reason, n=len(clean), clusters=draws.weights.shape[1])
    half = np.array(view_hw[::-1]) / 2
    drift = np.full(len(clean), np.nan)
    for i, warp in enumerate(warps):
        truth = warp(clean[i].astype(np.float64))
        stays = (np.abs(truth) <= 1).all(axis=1)
        if stays.any():
            drift[i] = np.linalg.norm((moved[i] - truth) * half, axis=1)[stays].mean()
    return draws.figure(drift, mean)


def soft_argmax(maps: Float[ndarray, "n c h w"]) -> Float[ndarray, "n c 2"]:
    """Return for each channel the mean of the cell centres, weighted by the channel's softmax over the cells.

    This computes the same as `spatial_softmax`, in float64.
    """
    n, c, h, w = maps.shape
    weight = np.exp(maps.astype(np.float64) - maps.max(axis=(2, 3), keepdims=True)).reshape(n, c, h * w)
    places: Float[ndarray, "n c 2"] = weight @ cell_centres((h, w)) / weight.sum(axis=2, keepdims=True)
    return places


def cell_centres(hw: tuple[int, ...]) -> Float[ndarray, "h*w 2"]:
    """Return the centres of a feature map's cells (x and y, from -1 to 1), row by row."""
    y, x = ((2 * np.arange(size) + 1) / size - 1 for size in hw)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _matches(clean: Float[ndarray, "c h w"], moved: Float[ndarray, "c h w"]) -> tuple[ndarray, ndarray]:
    """Match each cell of the clean map with the most similar cell (by centred cosine) of the moved map.

    Return the index of the matched cell, and whether no other cell of the moved map is equally similar.
    """
    flat = [each.reshape(len(each), -1).astype(np.float64) for each in (clean, moved)]
    centre = flat[0].mean(axis=1, keepdims=True)
    cells = [each - centre for each in flat]
    cells = [each / np.maximum(np.linalg.norm(each, axis=0), 1e-30) for each in cells]
    likeness = cells[0].T @ cells[1]
    best = likeness.max(axis=1, keepdims=True)
    return likeness.argmax(axis=1), (likeness >= best - TIE).sum(axis=1) == 1
