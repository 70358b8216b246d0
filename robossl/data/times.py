"""Clip rules: functions that choose the times of a clip's frames from random numbers.

An anchor is the frame around which a clip is drawn. A rule takes the clip, uniform random numbers u in [0, 1) (b, 4),
the times of the anchors (b,) and the times at which their episodes end (b,). All times are in seconds since the start
of the episode. A rule may return a time outside the episode; the frame for it is then marked as not valid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from robossl.views import ClipSpec

NUM_UNIFORMS = 4  # random numbers per sample, for every rule

Rule = Callable[
    [ClipSpec, Float64[ndarray, "b 4"], Float64[ndarray, " b"], Float64[ndarray, " b"]], Float64[ndarray, "b t"]
]


def stride(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b t"]:
    """Return `num_frames` times, `stride_seconds` apart.

    The time of the first frame is the time of the anchor (the drawn frame) plus a random offset in `offset_seconds`.
    """
    times: ndarray = _first(clip, u, anchor)[:, None] + _steps(clip)
    return times


def inside(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b t"]:
    """Return times as `stride` does, but move the clip so that it lies inside the episode.

    If the anchor (the drawn frame) lies at 30 % of the episode, the clip starts at 30 % of the range of its possible
    starts. So uniform anchors give clips that are spread evenly over the episode. Moving back only the clips
    that would end too late would be simpler, but too many clips would then lie at the end. Without an offset, the clip
    contains its anchor. A clip that is longer than its episode starts at time 0.
    """
    steps = _steps(clip)
    room = np.maximum(0.0, end - steps[-1])
    scaled = anchor * room / np.where(end > 0, end, 1.0)
    first = np.clip(_first(clip, u, scaled), 0.0, room)
    times: ndarray = first[:, None] + steps
    return times


def near_and_far(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b 3"]:
    """Return three times: of the anchor (the drawn frame), a near frame and a far frame, as single-view TCN needs them.

    The near time is at most `stride_seconds` from the anchor, and the far time is at least 2 * `stride_seconds` from it
    (arXiv:1704.06888). Each is drawn uniformly from the times of the episode that fulfil its condition. If no far time
    exists, the result is a time after the end of the episode.
    """
    window = clip.stride_seconds
    near = _uniform(u[:, 0], np.maximum(0.0, anchor - window), np.minimum(end, anchor + window))
    before, after = np.maximum(0.0, anchor - 2 * window), np.maximum(0.0, end - anchor - 2 * window)
    at = u[:, 1] * (before + after)
    far = np.where(at < before, at, anchor + 2 * window + at - before)
    far = np.where(before + after > 0, far, end + window)
    return np.stack([anchor, near, far], axis=1)


def ordered(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b 3"]:
    """Return three times s0 < s1 <= s2, as R3M (arXiv:2203.12601) needs them.

    As in the official loader, s1 is uniform over the episode, s0 is uniform before s1, and s2 is uniform after s1. If
    the episode is long enough, s0 and s1 are at least `stride_seconds` apart.
    """
    gap = np.minimum(clip.stride_seconds, end)
    s1 = _uniform(u[:, 0], gap, end)
    return np.stack([_uniform(u[:, 1], 0.0, s1 - gap), s1, _uniform(u[:, 2], s1, end)], axis=1)


def goal(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b 4"]:
    """Return the four times that VIP (arXiv:2210.00030) needs: start, t, t + `stride_seconds`, and goal.

    The start is uniform over the episode, the goal is uniform after the start, and t is uniform between start and
    goal. If t + `stride_seconds` would be after the goal, the third time is the goal.
    """
    step = clip.stride_seconds
    first = u[:, 0] * np.maximum(0.0, end - step)
    last = _uniform(u[:, 1], np.minimum(first + step, end), end)
    middle = _uniform(u[:, 2], first, np.maximum(first, last - step))
    return np.stack([first, middle, np.minimum(middle + step, last), last], axis=1)


RULES: dict[str, Rule] = {
    "stride": stride,
    "inside": inside,
    "near_and_far": near_and_far,
    "ordered": ordered,
    "goal": goal,
}


def span_seconds(clip: ClipSpec) -> float:
    """Return the shortest length, in seconds, of an episode that can contain all frames of a clip."""
    match clip.rule:
        case "near_and_far":
            return 2 * clip.stride_seconds
        case "ordered" | "goal":
            return clip.stride_seconds
        case "inside":
            return float(_steps(clip)[-1])
        case _:
            low, high = clip.offset_seconds
            return max(float(_steps(clip)[-1]) + max(0.0, low), -high)


def _steps(clip: ClipSpec) -> Float64[ndarray, " t"]:
    steps: ndarray = np.arange(max(1, clip.num_frames)) * clip.stride_seconds
    return steps


def _first(clip: ClipSpec, u: ndarray, anchor: ndarray) -> Float64[ndarray, " b"]:
    low, high = clip.offset_seconds
    first: ndarray = anchor + _uniform(u[:, 0], low, high)
    return first


def _uniform(u: ndarray, low: ndarray | float, high: ndarray | float) -> ndarray:
    values: ndarray = low + (high - low) * u
    return values
