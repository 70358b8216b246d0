"""The camera above the table: maps pixels to points of the table and back.

Table coordinates are in metres, with x to the right and y away from the viewer. Image fractions (x, y) run from (0, 0)
in the upper left corner to (1, 1) in the lower right corner. "Clean" means unchanged by nuisance factors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

# Metres on the table from the middle of a picture to its nearest border, if no nuisance factor changes the camera.
HALF_VIEW = 0.32


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that looks down on the table. Nuisance factors change its place, angle and zoom.

    `shift` is in views (1 view is 2 x HALF_VIEW metres), `roll` is in degrees, and `zoom` is a magnification. `tilt` is
    the relative change of depth from the middle of the picture to its border, along x and y.
    """

    shift: tuple[float, float] = (0.0, 0.0)
    roll: float = 0.0
    zoom: float = 1.0
    tilt: tuple[float, float] = (0.0, 0.0)

    @property
    def to_table(self) -> Float[ndarray, "3 3"]:
        """Homography from picture coordinates (shorter side: -1 to 1, y up) to points on the table in metres."""
        angle = math.radians(self.roll)
        c, s = math.cos(angle), math.sin(angle)
        plane = np.array([[c, -s, 2 * self.shift[0]], [s, c, 2 * self.shift[1]], [0, 0, 1]])
        tilt = np.array([[1, 0, 0], [0, 1, 0], [self.tilt[0], self.tilt[1], 1]])
        zoom = np.diag([HALF_VIEW / self.zoom, HALF_VIEW / self.zoom, 1.0])
        found: Float[ndarray, "3 3"] = zoom @ plane @ tilt
        return found


def homography(camera: Camera, *, height: int, width: int) -> Float[ndarray, "3 3"]:
    """Return the homography from the clean (unchanged) camera's picture to this camera's picture.

    It maps the pixel (column, row) of a table point in the first picture to the pixel of this point in the second.
    """
    half = min(height, width) / 2
    pixels = np.array([[half, 0, width / 2], [0, -half, height / 2], [0, 0, 1]])
    moved = pixels @ np.linalg.inv(camera.to_table) @ Camera().to_table @ np.linalg.inv(pixels)
    found: Float[ndarray, "3 3"] = moved / moved[2, 2]
    return found


class Grid:
    """The table coordinates of every pixel of a camera's picture."""

    def __init__(self, camera: Camera, *, height: int, width: int) -> None:
        self.camera, self.height, self.width = camera, height, width
        self.half = min(height, width) / 2
        u = (np.arange(width) + 0.5 - width / 2) / self.half
        v = (height / 2 - 0.5 - np.arange(height)) / self.half
        to_table = camera.to_table
        xs = to_table @ np.stack([np.tile(u, height), np.repeat(v, width), np.ones(width * height)])
        depth = xs[2].reshape(height, width)
        self.x: Float32[ndarray, "h w"] = (xs[0].reshape(height, width) / depth).astype(np.float32)
        self.y: Float32[ndarray, "h w"] = (xs[1].reshape(height, width) / depth).astype(np.float32)
        scale = math.sqrt(abs(float(np.linalg.det(to_table)))) / self.half
        self.per_metre: Float32[ndarray, "h w"] = (np.abs(depth) ** 1.5 / scale).astype(np.float32)  # pixels per metre
        self._to_picture = np.linalg.inv(to_table)
        self._rows = self._to_picture.tolist()

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel coordinates (column, row) of a point of the table."""
        a, b, c = self._rows
        depth = c[0] * x + c[1] * y + c[2]
        u, v = (a[0] * x + a[1] * y + a[2]) / depth, (b[0] * x + b[1] * y + b[2]) / depth
        return self.width / 2 + u * self.half, self.height / 2 - v * self.half

    def fractions(self, points: Float[ndarray, "n 2"]) -> Float32[ndarray, "n 2"]:
        """Convert points of the table to image fractions (x, y); values outside 0 to 1 are outside the picture."""
        homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ self._to_picture.T
        u, v = homogeneous[:, 0] / homogeneous[:, 2], homogeneous[:, 1] / homogeneous[:, 2]
        columns, rows = self.width / 2 + u * self.half, self.height / 2 - v * self.half
        return np.stack([columns / self.width, rows / self.height], axis=1).astype(np.float32)

    def window(self, left: float, bottom: float, right: float, top: float) -> tuple[slice, slice] | None:
        """Return the rows and columns of pixels that show a rectangle on the table; None if it is out of view."""
        corners = [self.pixel(x, y) for x in (left, right) for y in (bottom, top)]
        along, down = [column for column, _ in corners], [row for _, row in corners]
        rows = slice(max(0, int(min(down)) - 1), min(self.height, int(max(down)) + 2))
        columns = slice(max(0, int(min(along)) - 1), min(self.width, int(max(along)) + 2))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None
