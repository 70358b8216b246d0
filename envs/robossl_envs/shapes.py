"""Shapes that give the signed distance of a point to their outline: negative inside, positive outside.

Distances are in metres, and points are in the shape's own coordinates. Drawing uses the distances, which say how much
of a pixel is covered. Physics uses the corners and radii.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Point = tuple[float, float]
Bounds = tuple[float, float, float, float]  # left, bottom, right, top


class Shape(Protocol):
    """A shape that can be drawn."""

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """Characteristic points: the corners, or the centre of a disc."""
        ...

    def bounds(self, angle: float) -> Bounds:
        """Return the bounds, in metres, of the shape after a rotation by an angle in radians."""
        ...

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Return the signed distance of points to the outline, in metres.

        For points outside a corner, the result is too small. It is the distance to the line of a side, not to the
        corner.
        """
        ...

    def scaled(self, factor: float) -> Shape:
        """Return the shape scaled by a factor."""
        ...


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc around the origin."""

    radius: float

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The centre of the disc, as the only point."""
        return ((0.0, 0.0),)

    def bounds(self, angle: float) -> Bounds:
        """Return the square that encloses the disc."""
        return -self.radius, -self.radius, self.radius, self.radius

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Return the signed distance of points to the circle."""
        found: Float[ndarray, "*n"] = x * x
        found += y * y
        np.sqrt(found, out=found)
        found -= np.float32(self.radius)
        return found

    def scaled(self, factor: float) -> Disc:
        """Return the disc scaled by a factor."""
        return Disc(self.radius * factor)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with centre (x, y)."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners of the rectangle, counter-clockwise."""
        w, h = self.width / 2, self.height / 2
        return tuple((self.x + a * w, self.y + b * h) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)))

    def bounds(self, angle: float) -> Bounds:
        """Return the bounds of the rotated corners."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Return the larger of the signed distances along x and along y, for each point."""
        found: Float[ndarray, "*n"] = np.abs(x - np.float32(self.x) if self.x else x)
        found -= np.float32(self.width / 2)
        other = np.abs(y - np.float32(self.y) if self.y else y)
        other -= np.float32(self.height / 2)
        np.maximum(found, other, out=found)
        return found

    def scaled(self, factor: float) -> Box:
        """Return the box scaled by a factor."""
        return Box(self.width * factor, self.height * factor, self.x * factor, self.y * factor)


@dataclass(frozen=True, slots=True)
class Triangle:
    """A triangle whose corners are given counter-clockwise."""

    keypoints: tuple[Point, Point, Point]

    def bounds(self, angle: float) -> Bounds:
        """Return the bounds of the rotated corners."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Return the largest of the signed distances to the lines of the three sides, for each point."""
        sides = []
        for k, (ax, ay) in enumerate(self.keypoints):
            bx, by = self.keypoints[(k + 1) % 3]
            length = math.hypot(bx - ax, by - ay)
            nx, ny = (by - ay) / length, (ax - bx) / length
            sides.append(x * np.float32(nx) + y * np.float32(ny) - np.float32(nx * ax + ny * ay))
        found: Float[ndarray, "*n"] = np.maximum(np.maximum(sides[0], sides[1]), sides[2])
        return found

    def scaled(self, factor: float) -> Triangle:
        """Return the triangle scaled by a factor."""
        (ax, ay), (bx, by), (cx, cy) = self.keypoints
        return Triangle(((ax * factor, ay * factor), (bx * factor, by * factor), (cx * factor, cy * factor)))


@dataclass(frozen=True, slots=True)
class CompoundShape:
    """Several boxes as one rigid shape with a common origin."""

    parts: tuple[Box, ...]

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners of all parts."""
        return tuple(point for part in self.parts for point in part.keypoints)

    def bounds(self, angle: float) -> Bounds:
        """Return the bounds of the rotated corners of all parts."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Return the signed distance of points to the nearest part."""
        found = self.parts[0].distance(x, y)
        for part in self.parts[1:]:
            np.minimum(found, part.distance(x, y), out=found)
        return found

    def scaled(self, factor: float) -> CompoundShape:
        """Return the shape scaled by a factor."""
        return CompoundShape(tuple(part.scaled(factor) for part in self.parts))


def t_shape(size: float) -> CompoundShape:
    """Return a T with a bar of width `size`. Its origin is its centre of mass, and its stem points to -y."""
    # The centre of mass lies this far below the middle of the bar.
    below = (3 / 4 * size / 2) / (1 + 3 / 4)
    return CompoundShape((Box(size, size / 4, y=below), Box(size / 4, size * 3 / 4, y=below - size / 2)))


def radius_of(shape: Shape) -> float:
    """Return the radius of the circle around the origin that encloses a shape, in metres."""
    if isinstance(shape, Disc):
        return shape.radius
    return max(math.hypot(x, y) for x, y in shape.keypoints)


def _bounds(points: Iterable[Point], angle: float) -> Bounds:
    c, s = math.cos(angle), math.sin(angle)
    turned = [(c * x - s * y, s * x + c * y) for x, y in points]
    xs, ys = [x for x, _ in turned], [y for _, y in turned]
    return min(xs), min(ys), max(xs), max(ys)
