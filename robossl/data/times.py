"""Which times of an episode make up a clip: one function a rule, a pure function of the numbers drawn for a sample.

A time outside the episode is allowed: that frame is then marked as not valid.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from robossl.views import ClipSpec

NUM_UNIFORMS = 4  # drawn for each sample, whatever the rule needs

Rule = Callable[
    [ClipSpec, Float64[ndarray, "b 4"], Float64[ndarray, " b"], Float64[ndarray, " b"]], Float64[ndarray, "b t"]
]


def stride(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b t"]:
    """`num_frames` times, `stride_seconds` apart, the first within `offset_seconds` of the anchor."""
    times: ndarray = _first(clip, u, anchor)[:, None] + _steps(clip)
    return times


def inside(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b t"]:
    """As `stride`, but in its episode where that is long enough; else it starts with the episode.

    The anchor's place in the episode becomes the clip's: a uniform anchor gives a uniform clip (pushing back what
    sticks out would pile clips up at the end), and without an offset the clip holds its anchor.
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
    """Anchor, a time within `stride_seconds` of it, one farther than twice that (single-view TCN, arXiv:1704.06888).

    The far one is uniform over what the episode has of such times; where it has none, it lies past the end.
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
    """Three times in order (R3M, arXiv:2203.12601): its s0 < s1 <= s2.

    As in the official loader, s1 is uniform over the episode, s0 before it and s2 after it; s0 and s1 are
    `stride_seconds` apart or more where the episode is long enough.
    """
    gap = np.minimum(clip.stride_seconds, end)
    s1 = _uniform(u[:, 0], gap, end)
    return np.stack([_uniform(u[:, 1], 0.0, s1 - gap), s1, _uniform(u[:, 2], s1, end)], axis=1)


def goal(
    clip: ClipSpec, u: Float64[ndarray, "b 4"], anchor: Float64[ndarray, " b"], end: Float64[ndarray, " b"]
) -> Float64[ndarray, "b 4"]:
    """First, some time k, `stride_seconds` after it, and the goal (VIP, arXiv:2210.00030): o_0, o_k, o_k+1, g.

    The first is uniform over the episode, the goal uniform after it, k uniform between them.
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
    """How long an episode must be for all frames of a clip to lie in it, at the best of anchors."""
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
