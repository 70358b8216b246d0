"""Pair the frames of a video with the rows of its episodes, by their times and counts.

An episode is refused if its times and counts contradict each other. A v2.1 video holds one episode. A v3.0 video holds
many episodes, each from its `from_timestamp` to its `to_timestamp`. Real data sets also have frames of discarded takes,
timestamps that drift, and episodes without their last frames.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from robossl.data.source import Damaged

# Video encoders may lose the last one or two frames of an episode. The rows of these frames are left out.
MAX_MISSING_FRAMES = 2
# If the stated part of a video and its episode differ in length by fewer frames than this, they count as equally long.
SAME_LENGTH = 0.75
ON_FRAME = 0.25  # largest time between the stated start of an episode and its first frame, in frame intervals


@dataclass(frozen=True, slots=True)
class LeRobotSegment:
    """The part of a video that belongs to an episode according to the metadata."""

    from_seconds: float
    to_seconds: float  # end of the part; inf if the metadata do not state it
    length: int  # number of rows of the episode


@dataclass(frozen=True, slots=True)
class LeRobotFrameSpan:
    """The place of an episode's frames in its video, in whole frames."""

    first_frame: int
    num_frames: int
    num_in_file: int  # number of frames in the video up to the end of its last episode
    has_gaps: bool  # whether some frames of the video belong to no episode
    # First frame of the episode, and number of frames in the video. Both are computed from the numbers of rows: they
    # assume that every row of every episode has a frame, and that there are no gaps.
    first_by_length: int
    num_by_length: int


def count_frame_spans(segments: Sequence[LeRobotSegment], frames_per_s: float) -> list[LeRobotFrameSpan]:
    """Find by counting which frames of one video belong to each episode. `segments` must be in time order.

    The timestamps of a file drift more and more from episode to episode. Counting whole frames removes this drift.
    """
    counted: list[tuple[int, int, int]] = []
    position = round(segments[0].from_seconds * frames_per_s)
    by_length, has_gaps = 0, position > 0
    for number, segment in enumerate(segments):
        following = segments[number + 1].from_seconds if number + 1 < len(segments) else math.inf
        end = min(segment.to_seconds, following)
        stated = (end - segment.from_seconds) * frames_per_s
        is_as_long = end == math.inf or abs(stated - segment.length) < SAME_LENGTH
        num_frames = segment.length if is_as_long else max(0, round(stated))
        counted.append((position, num_frames, by_length))
        gap = round((following - end) * frames_per_s) if end < following < math.inf else 0
        position, by_length = position + num_frames + gap, by_length + segment.length
        has_gaps |= gap > 0
    return [LeRobotFrameSpan(first, num, position, has_gaps, simple, by_length) for first, num, simple in counted]


def drift_frames(segment: LeRobotSegment, span: LeRobotFrameSpan, frames_per_s: float) -> float:
    """Return the stated start of an episode minus the start that counting frames gives, in frames."""
    return segment.from_seconds * frames_per_s - span.first_frame


def frames_of_segment(
    times: Sequence[float], segment: LeRobotSegment, span: LeRobotFrameSpan, frames_per_s: float
) -> range:
    """Return the indices of an episode's frames in `times`, the times of all frames of its video.

    Raises:
        Damaged: the times and the counts of frames disagree.
    """
    if len(times) == span.num_by_length and abs(span.num_frames - segment.length) <= MAX_MISSING_FRAMES:
        return range(span.first_by_length, span.first_by_length + segment.length)
    surplus = len(times) - span.num_in_file
    num_by_time = round(times[-1] * frames_per_s) + 1 if times else 0
    num_short = span.num_in_file - max(len(times), num_by_time)
    if (surplus > 0 and not span.has_gaps) or num_short > MAX_MISSING_FRAMES:
        raise Damaged(
            f"the video has {len(times)} frames, its episodes take {span.num_in_file}: which frames belong to which "
            "rows is unknown"
        )
    end, half = span.first_frame + span.num_frames, 0.5 / frames_per_s
    if surplus == 0:
        return range(span.first_frame, end)
    first = bisect_left(times, segment.from_seconds - half)
    if first == len(times) or abs(times[first] - segment.from_seconds) * frames_per_s > ON_FRAME:
        raise Damaged(f"the video has no frame at {segment.from_seconds:.3f} s, where the episode starts")
    if (found := round(times[first] * frames_per_s)) != span.first_frame:
        raise Damaged(
            f"from_timestamp says frame {found} of the video, the lengths of the episodes before say "
            f"{span.first_frame}: which is right is unknown"
        )
    return range(first, bisect_left(times, end / frames_per_s - half))


def rows_in_order(frame_index: Sequence[int | None]) -> list[int]:
    """Return the rows of an episode in frame order.

    Keep the given order if `frame_index` lacks values, or if all its values are equal.

    Raises:
        Damaged: a value of `frame_index` occurs twice, or a number between the first and the last is missing.
    """
    numbers = [number for number in frame_index if number is not None]
    if len(numbers) < len(frame_index) or len(set(numbers)) == 1:
        return list(range(len(frame_index)))
    if len(set(numbers)) < len(numbers):
        raise Damaged(f"{len(numbers)} rows have {len(set(numbers))} different frame_index: it is unknown which to use")
    if max(numbers) - min(numbers) + 1 != len(numbers):
        raise Damaged(f"{len(numbers)} rows for frame_index {min(numbers)} to {max(numbers)}: some are missing")
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def rows_of_frames(times: Sequence[float], start_seconds: float, num_rows: int, frames_per_s: float) -> list[int]:
    """Return the row of each frame of an episode. If frames are missing, find the rows by the times of the others.

    Raises:
        Damaged: there are more frames than rows, or too few frames.
    """
    num_frames = len(times)
    if num_frames == num_rows:
        return list(range(num_rows))
    if num_frames > num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows: which frames are extra is unknown")
    if num_frames == 0 or num_frames + MAX_MISSING_FRAMES < num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows")
    if (times[0] - start_seconds) * frames_per_s > num_rows - num_frames + 0.5:
        # Missing frames do not explain such a late start, so the video must have its own clock.
        start_seconds = times[0]
    rows: list[int] = []
    row, before = -1, start_seconds - 1 / frames_per_s
    for seconds in times:
        row += max(1, math.floor((seconds - before) * frames_per_s + 0.25))
        rows.append(row)
        before = seconds
    if rows[-1] >= num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows, the last at the time of row {rows[-1]}")
    return rows
