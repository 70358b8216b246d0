"""Shapes: the sign of a distance, its slope, size and centre of mass."""

from __future__ import annotations

import numpy as np
import pytest
from robossl_envs.shapes import Box, CompoundShape, Disc, Shape, Triangle, radius_of, t_shape

SHAPES: dict[str, Shape] = {
    "disc": Disc(0.4),
    "box": Box(0.8, 0.4, x=0.1),
    "triangle": Triangle(((-0.4, -0.3), (0.4, -0.3), (0.0, 0.5))),
    "t_shape": t_shape(1.0),
}
SIDE = np.linspace(-1.2, 1.2, 241, dtype=np.float32)
X, Y = np.meshgrid(SIDE, SIDE)
AREAS = {
    "disc": np.pi * 0.16,
    "box": 0.32,
    "triangle": 0.32,
    "t_shape": 7 / 16,
}


@pytest.mark.parametrize("name", SHAPES)
def test_the_inside_has_the_shape_s_area(name: str) -> None:
    inside = SHAPES[name].distance(X, Y) < 0
    assert inside.sum() * 0.01**2 == pytest.approx(AREAS[name], rel=0.04)


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_lies_outside_the_radius_and_a_double_is_twice_as_large(name: str) -> None:
    shape = SHAPES[name]
    inside = shape.distance(X, Y) < 0
    assert np.hypot(X, Y)[inside].max() <= radius_of(shape) + 1e-6
    for angle in (0.0, 0.7, -2.0):
        c, s = np.cos(angle), np.sin(angle)
        x, y = c * X[inside] - s * Y[inside], s * X[inside] + c * Y[inside]
        assert (x.min(), y.min(), x.max(), y.max()) == pytest.approx(shape.bounds(angle), abs=0.015)
    double = shape.scaled(2)
    assert radius_of(double) == pytest.approx(2 * radius_of(shape))
    assert np.allclose(double.distance(2 * X, 2 * Y), 2 * shape.distance(X, Y), atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_a_distance_never_changes_faster_than_the_way(name: str) -> None:
    distance = SHAPES[name].distance(X, Y)
    assert np.abs(np.diff(distance, axis=0)).max() <= 0.01 + 1e-5
    assert np.abs(np.diff(distance, axis=1)).max() <= 0.01 + 1e-5


def test_a_tee_lies_about_its_centre_of_mass() -> None:
    tee_shape = t_shape(1.0)
    assert isinstance(tee_shape, CompoundShape)
    inside = tee_shape.distance(X, Y) < 0
    assert (X[inside].mean(), Y[inside].mean()) == pytest.approx((0, 0), abs=0.01)
