"""Shapes as signed distances: negative inside, positive outside, in metres and in the shape's own frame.

One description serves drawing (the distance gives the coverage of a pixel) and physics (corners and radii).
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
    """What can be drawn."""

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """Points that a person would name: corners, ends, the centre of a disc."""
        ...

    def bounds(self, angle: float) -> Bounds:
        """Of the shape turned by an angle in radians, in metres."""
        ...

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Signed distance of points to the outline, in metres (outside corners: to the lines through the sides)."""
        ...

    def scaled(self, factor: float) -> Shape:
        """The same shape, larger or smaller."""
        ...


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc about the origin."""

    radius: float

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The centre."""
        return ((0.0, 0.0),)

    def bounds(self, angle: float) -> Bounds:
        """The square about it."""
        return -self.radius, -self.radius, self.radius, self.radius

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Signed distance."""
        found: Float[ndarray, "*n"] = x * x
        found += y * y
        np.sqrt(found, out=found)
        found -= np.float32(self.radius)
        return found

    def scaled(self, factor: float) -> Disc:
        """Larger or smaller."""
        return Disc(self.radius * factor)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle about (x, y)."""

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners, counter-clockwise."""
        w, h = self.width / 2, self.height / 2
        return tuple((self.x + a * w, self.y + b * h) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)))

    def bounds(self, angle: float) -> Bounds:
        """Of its corners."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """The larger of the signed distances along both axes."""
        found: Float[ndarray, "*n"] = np.abs(x - np.float32(self.x) if self.x else x)
        found -= np.float32(self.width / 2)
        other = np.abs(y - np.float32(self.y) if self.y else y)
        other -= np.float32(self.height / 2)
        np.maximum(found, other, out=found)
        return found

    def scaled(self, factor: float) -> Box:
        """Larger or smaller."""
        return Box(self.width * factor, self.height * factor, self.x * factor, self.y * factor)


@dataclass(frozen=True, slots=True)
class Triangle:
    """Three corners, counter-clockwise."""

    keypoints: tuple[Point, Point, Point]

    def bounds(self, angle: float) -> Bounds:
        """Of its corners."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """The largest of the signed distances to the lines through the sides."""
        sides = []
        for k, (ax, ay) in enumerate(self.keypoints):
            bx, by = self.keypoints[(k + 1) % 3]
            length = math.hypot(bx - ax, by - ay)
            nx, ny = (by - ay) / length, (ax - bx) / length
            sides.append(x * np.float32(nx) + y * np.float32(ny) - np.float32(nx * ax + ny * ay))
        found: Float[ndarray, "*n"] = np.maximum(np.maximum(sides[0], sides[1]), sides[2])
        return found

    def scaled(self, factor: float) -> Triangle:
        """Larger or smaller."""
        (ax, ay), (bx, by), (cx, cy) = self.keypoints
        return Triangle(((ax * factor, ay * factor), (bx * factor, by * factor), (cx * factor, cy * factor)))


@dataclass(frozen=True, slots=True)
class CompoundShape:
    """Boxes that make up one rigid shape; its origin is where the parts say."""

    parts: tuple[Box, ...]

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners of all parts."""
        return tuple(point for part in self.parts for point in part.keypoints)

    def bounds(self, angle: float) -> Bounds:
        """Of all corners."""
        return _bounds(self.keypoints, angle)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """The smallest of the parts' distances."""
        found = self.parts[0].distance(x, y)
        for part in self.parts[1:]:
            np.minimum(found, part.distance(x, y), out=found)
        return found

    def scaled(self, factor: float) -> CompoundShape:
        """Larger or smaller."""
        return CompoundShape(tuple(part.scaled(factor) for part in self.parts))


def t_shape(size: float) -> CompoundShape:
    """A T whose bar is `size` wide, about its centre of mass; the stem points to -y."""
    below = (3 / 4 * size / 2) / (1 + 3 / 4)  # the centre of mass lies this far below the bar's middle
    return CompoundShape((Box(size, size / 4, y=below), Box(size / 4, size * 3 / 4, y=below - size / 2)))


def radius_of(shape: Shape) -> float:
    """Of the circle about the origin that holds a shape, in metres."""
    if isinstance(shape, Disc):
        return shape.radius
    return max(math.hypot(x, y) for x, y in shape.keypoints)


def _bounds(points: Iterable[Point], angle: float) -> Bounds:
    c, s = math.cos(angle), math.sin(angle)
    turned = [(c * x - s * y, s * x + c * y) for x, y in points]
    xs, ys = [x for x, _ in turned], [y for _, y in turned]
    return min(xs), min(ys), max(xs), max(ys)
