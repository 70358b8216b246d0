"""Shapes as signed distances: negative inside, positive outside, in metres and in the shape's own frame.

One description serves drawing (the distance gives the coverage of a pixel) and physics (`convex` gives the parts).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from numpy import ndarray

Point = tuple[float, float]


class Shape(Protocol):
    """What can be drawn and pushed."""

    @property
    def radius(self) -> float:
        """Of a circle about the origin that holds the shape, in metres."""
        ...

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of the shape as it lies, in metres."""
        ...

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Signed distance of points to the outline, in metres (outside corners: to the lines through the sides)."""
        ...

    def scaled(self, factor: float) -> Shape:
        """The same shape, larger or smaller."""
        ...

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """Points that a person would name: corners, ends, the centre of a disc."""
        ...


@dataclass(frozen=True, slots=True)
class Disc:
    """A disc about the origin."""

    radius: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """The square about it."""
        return -self.radius, -self.radius, self.radius, self.radius

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Signed distance."""
        found: Float[ndarray, "*n"] = np.sqrt(x * x + y * y)
        found -= np.float32(self.radius)
        return found

    def scaled(self, factor: float) -> Disc:
        """Larger or smaller."""
        return Disc(self.radius * factor)

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The centre."""
        return ((0.0, 0.0),)


@dataclass(frozen=True, slots=True)
class Polygon:
    """A convex polygon, its corners counter-clockwise."""

    corners: tuple[Point, ...]

    @property
    def radius(self) -> float:
        """Of the circle that holds it."""
        return max(math.hypot(x, y) for x, y in self.corners)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Of the corners."""
        return _bounds(self.corners)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """The largest of the signed distances to the lines through the sides."""
        found = None
        for (ax, ay), (bx, by) in zip(self.corners, self.corners[1:] + self.corners[:1], strict=True):
            length = math.hypot(bx - ax, by - ay)
            nx, ny = (by - ay) / length, (ax - bx) / length
            side = x * np.float32(nx) + y * np.float32(ny)
            side -= np.float32(nx * ax + ny * ay)
            found = side if found is None else np.maximum(found, side, out=found)
        assert found is not None
        return found

    def scaled(self, factor: float) -> Polygon:
        """Larger or smaller."""
        return Polygon(tuple((x * factor, y * factor) for x, y in self.corners))

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners."""
        return self.corners


def box(width: float, height: float, *, x: float = 0.0, y: float = 0.0) -> Polygon:
    """A rectangle about (x, y)."""
    w, h = width / 2, height / 2
    return Polygon(((x - w, y - h), (x + w, y - h), (x + w, y + h), (x - w, y + h)))


@dataclass(frozen=True, slots=True)
class Union:
    """Convex parts of one rigid shape; its origin is where the parts say."""

    parts: tuple[Polygon, ...]

    @property
    def radius(self) -> float:
        """Of the circle that holds all parts."""
        return max(part.radius for part in self.parts)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Of all parts."""
        return _bounds(self.keypoints)

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """The smallest of the parts' distances."""
        found = self.parts[0].distance(x, y)
        for part in self.parts[1:]:
            np.minimum(found, part.distance(x, y), out=found)
        return found

    def scaled(self, factor: float) -> Union:
        """Larger or smaller."""
        return Union(tuple(part.scaled(factor) for part in self.parts))

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """The corners of all parts."""
        return tuple(point for part in self.parts for point in part.corners)


@dataclass(frozen=True, slots=True)
class Capsule:
    """A thick line from the origin to a point: a link of an arm."""

    end: Point
    width: float

    @property
    def radius(self) -> float:
        """Of the circle that holds it."""
        return math.hypot(*self.end) + self.width / 2

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Of both ends."""
        left, bottom, right, top = _bounds(self.keypoints)
        half = self.width / 2
        return left - half, bottom - half, right + half, top + half

    def distance(self, x: Float[ndarray, "*n"], y: Float[ndarray, "*n"]) -> Float[ndarray, "*n"]:
        """Signed distance."""
        dx, dy = self.end
        along = x * np.float32(dx) + y * np.float32(dy)
        along *= np.float32(1 / max(dx * dx + dy * dy, 1e-12))
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        px, py = x - along * np.float32(dx), y - along * np.float32(dy)
        px *= px
        py *= py
        px += py
        found: Float[ndarray, "*n"] = np.sqrt(px, out=px)
        found -= np.float32(self.width / 2)
        return found

    def scaled(self, factor: float) -> Capsule:
        """Larger or smaller."""
        return Capsule((self.end[0] * factor, self.end[1] * factor), self.width * factor)

    @property
    def keypoints(self) -> tuple[Point, ...]:
        """Both ends."""
        return (0.0, 0.0), self.end


def _bounds(points: tuple[Point, ...]) -> tuple[float, float, float, float]:
    xs, ys = [x for x, _ in points], [y for _, y in points]
    return min(xs), min(ys), max(xs), max(ys)


def tee(size: float) -> Union:
    """A T whose bar is `size` wide, about its centre of mass; the stem points to -y."""
    bar, stem = box(size, size / 4), box(size / 4, size * 3 / 4, y=-size / 2)
    shift = (3 / 4 * size / 2) / (1 + 3 / 4)  # the centre of mass lies this far below the bar's middle

    def moved(part: Polygon) -> Polygon:
        return Polygon(tuple((x, y + shift) for x, y in part.corners))

    return Union((moved(bar), moved(stem)))
