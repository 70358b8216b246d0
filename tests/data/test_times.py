"""Rules that choose the times of a clip: in order where promised, in the episode, near is near and far is far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import ndarray

from robossl.data.times import NUM_UNIFORMS, RULES, span_seconds
from robossl.views import ClipSpec

SLACK = 1e-9  # rounding, in seconds
seconds = st.floats(0.0, 1e4)
strides = st.floats(1e-3, 100.0)


@st.composite
def drawn(draw: st.DrawFn) -> tuple[ndarray, ndarray, ndarray]:
    """Uniforms, anchors and ends of a few episodes, some of one frame."""
    b = draw(st.integers(1, 4))
    below_one = st.floats(0.0, 1.0, exclude_max=True)
    u = np.array(draw(st.lists(below_one, min_size=b * NUM_UNIFORMS, max_size=b * NUM_UNIFORMS)))
    end = np.array(draw(st.lists(seconds, min_size=b, max_size=b)))
    at = np.array(draw(st.lists(st.floats(0.0, 1.0), min_size=b, max_size=b)))
    return u.reshape(b, NUM_UNIFORMS), at * end, end


def assert_in_episode(times: ndarray, end: ndarray) -> None:
    assert (times >= -SLACK).all() and (times <= end[:, None] + SLACK).all()


def assert_in_order(times: ndarray) -> None:
    assert (np.diff(times, axis=1) >= -SLACK).all()


@given(drawn(), strides, st.integers(1, 6), seconds, seconds)
def test_stride_starts_within_its_offset_and_steps_evenly(
    draws: tuple[ndarray, ndarray, ndarray], stride: float, num_frames: int, low: float, width: float
) -> None:
    clip = ClipSpec(num_frames, stride, (low - 5e3, low - 5e3 + width))
    u, anchor, end = draws
    times = RULES["stride"](clip, u, anchor, end)
    assert times.shape == (len(u), num_frames)
    assert np.allclose(np.diff(times, axis=1), stride, atol=1e-6)
    lag = times[:, 0] - anchor
    assert (lag >= low - 5e3 - 1e-6).all() and (lag <= low - 5e3 + width + 1e-6).all()


@given(drawn(), strides, st.integers(1, 6), st.floats(-10, 10))
def test_inside_stays_inside_where_it_can_and_else_starts_with_the_episode(
    draws: tuple[ndarray, ndarray, ndarray], stride: float, num_frames: int, offset: float
) -> None:
    clip = ClipSpec(num_frames, stride, (offset, offset + 1), rule="inside")
    u, anchor, end = draws
    times = RULES["inside"](clip, u, anchor, end)
    assert np.allclose(np.diff(times, axis=1), stride, atol=1e-6)
    long_enough = end >= span_seconds(clip)
    assert_in_episode(times[long_enough], end[long_enough])
    assert (times[~long_enough, 0] == 0).all()


@given(drawn(), strides, st.integers(1, 6))
def test_inside_without_offset_holds_its_anchor(
    draws: tuple[ndarray, ndarray, ndarray], stride: float, num_frames: int
) -> None:
    u, anchor, end = draws
    times = RULES["inside"](ClipSpec(num_frames, stride, rule="inside"), u, anchor, end)
    assert (times[:, 0] <= anchor + SLACK).all()
    assert (times[:, -1] >= np.minimum(anchor, end) - SLACK).all()


def test_inside_makes_a_uniform_clip_of_a_uniform_anchor() -> None:
    anchor, end = np.linspace(0, 4, 101), np.full(101, 4.0)
    times = RULES["inside"](ClipSpec(4, 1.0, rule="inside"), np.zeros((101, 4)), anchor, end)
    assert np.allclose(times[:, 0], np.linspace(0, 1, 101))


@given(drawn(), strides)
def test_near_is_near_and_far_is_far_or_not_valid(draws: tuple[ndarray, ndarray, ndarray], window: float) -> None:
    clip = ClipSpec(3, window, rule="near_and_far")
    u, anchor, end = draws
    first, near, far = RULES["near_and_far"](clip, u, anchor, end).T
    assert (first == anchor).all()
    assert (abs(near - anchor) <= window + SLACK).all()
    assert_in_episode(near[:, None], end)
    valid = (far >= 0) & (far <= end + 1e-6)  # the sampler's rule
    assert (abs(far - anchor)[valid] >= 2 * window - 1e-6).all()
    has_far = np.maximum(anchor, end - anchor) > 2 * window + SLACK
    assert (valid[has_far]).all()
    assert not valid[np.maximum(anchor, end - anchor) <= 2 * window].any()


def test_far_is_uniform_over_both_sides() -> None:
    u = np.tile(np.linspace(0, 1, 1000, endpoint=False)[:, None], (1, 4))
    anchor, end = np.full(1000, 4.0), np.full(1000, 10.0)
    far = RULES["near_and_far"](ClipSpec(3, 1.0, rule="near_and_far"), u, anchor, end)[:, 2]
    assert ((far < 2) | (far >= 6)).all()
    counts, _ = np.histogram(far, bins=[0, 1, 2, 6, 7, 8, 9, 10])
    assert np.allclose(counts, [167, 167, 0, 167, 167, 166, 166], atol=2)


@given(drawn(), strides)
def test_ordered_times_are_in_order_and_the_first_two_apart(
    draws: tuple[ndarray, ndarray, ndarray], gap: float
) -> None:
    clip = ClipSpec(3, gap, rule="ordered")
    u, anchor, end = draws
    times = RULES["ordered"](clip, u, anchor, end)
    assert_in_order(times)
    assert_in_episode(times, end)
    apart = (times[:, 1] - times[:, 0])[end >= span_seconds(clip)]
    assert (apart >= gap - 1e-6).all()


@given(drawn(), strides)
def test_goal_comes_last_and_its_step_is_a_step(draws: tuple[ndarray, ndarray, ndarray], step: float) -> None:
    clip = ClipSpec(4, step, rule="goal")
    u, anchor, end = draws
    times = RULES["goal"](clip, u, anchor, end)
    assert_in_order(times)
    assert_in_episode(times, end)
    whole = end >= span_seconds(clip)
    assert np.allclose((times[:, 2] - times[:, 1])[whole], step, atol=1e-6)


@pytest.mark.parametrize(
    ("clip", "needed"),
    [
        (ClipSpec(8, 0.3), 2.1),
        (ClipSpec(8, 0.3, (0.5, 1.0)), 2.6),
        (ClipSpec(2, 0.1, (-3.0, -2.0)), 2.0),
        (ClipSpec(8, 0.3, (0.5, 1.0), rule="inside"), 2.1),
        (ClipSpec(3, 0.4, rule="near_and_far"), 0.8),
        (ClipSpec(3, 0.4, rule="ordered"), 0.4),
        (ClipSpec(4, 0.1, rule="goal"), 0.1),
        (ClipSpec(), 0.0),
    ],
)
def test_span_is_how_long_an_episode_must_be(clip: ClipSpec, needed: float) -> None:
    assert span_seconds(clip) == pytest.approx(needed)
    grid = np.linspace(0, 10, 201)
    u = np.tile(grid[:, None] / 10.0001, (1, 4))
    for end, fits in ((needed + 1e-3, True), (needed - 1e-3, False)):
        anchor = np.linspace(0, max(end, 0), 101)
        pairs = [(a, row) for a in anchor for row in u[::20]]
        anchors, rows = np.array([a for a, _ in pairs]), np.stack([row for _, row in pairs])
        ends = np.full(len(anchors), max(end, 0.0))
        times = RULES[clip.rule](clip, rows, anchors, ends)
        inside = ((times >= -1e-6) & (times <= ends[:, None] + 1e-6)).all(1)
        if clip.rule in ("stride", "inside", "near_and_far") and needed:
            assert inside.any() == fits
