"""The camera's homography, both ways."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robossl_envs.camera import HALF_VIEW, Camera, Grid

small = st.floats(-0.16, 0.16)
CAMERAS = st.builds(
    Camera,
    shift=st.tuples(small, small),
    roll=st.floats(-180, 180),
    zoom=st.floats(0.6, 1.6),
    tilt=st.tuples(st.floats(-0.28, 0.28), st.floats(-0.28, 0.28)),
)


@given(CAMERAS, st.integers(20, 40), st.integers(20, 40))
def test_a_pixel_s_point_on_the_table_is_seen_at_that_pixel(camera: Camera, height: int, width: int) -> None:
    grid = Grid(camera, height=height, width=width)
    for row, column in ((0, 0), (height // 2, width // 3), (height - 1, width - 1)):
        x, y = float(grid.x[row, column]), float(grid.y[row, column])
        assert grid.pixel(x, y) == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)
        u, v = grid.fractions(np.array([[x, y]]))[0]
        assert (u * width, v * height) == pytest.approx((column + 0.5, row + 0.5), abs=1e-3)


@given(CAMERAS)
def test_pixels_a_metre_is_the_root_of_the_area_s_scale(camera: Camera) -> None:
    grid = Grid(camera, height=24, width=24)
    x, y = float(grid.x[7, 15]), float(grid.y[7, 15])
    step = 1e-4
    a, b, c = (np.array(grid.pixel(*point)) for point in ((x, y), (x + step, y), (x, y + step)))
    area = abs(np.linalg.det(np.stack([b - a, c - a]))) / step**2
    assert float(grid.per_metre[7, 15]) == pytest.approx(area**0.5, rel=2e-3)


@given(CAMERAS, st.floats(-0.2, 0.2), st.floats(-0.2, 0.2), st.floats(0.005, 0.08), st.floats(0.005, 0.08))
def test_a_window_holds_its_rectangle(camera: Camera, x: float, y: float, width: float, height: float) -> None:
    grid = Grid(camera, height=32, width=40)
    inside = (np.abs(grid.x - x) < width) & (np.abs(grid.y - y) < height)
    window = grid.window(x - width, y - height, x + width, y + height)
    if window is None:
        assert not inside.any()
    else:
        outside = inside.copy()
        outside[window] = False
        assert not outside.any()


def test_a_clean_view_shows_the_table_upright() -> None:
    grid = Grid(Camera(), height=10, width=20)
    assert grid.y[0, 0] > grid.y[-1, 0]
    assert grid.x[0, 0] < grid.x[0, -1]
    assert grid.y[0, 0] == pytest.approx(HALF_VIEW * 0.9)
    assert grid.x[0, -1] == pytest.approx(HALF_VIEW * 1.9)
