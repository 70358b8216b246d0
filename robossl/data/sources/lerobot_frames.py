"""Which frames of a video belong to which rows: by time, checked against counts; what disagrees is refused.

A v2.1 video holds one episode, a v3.0 video many, each from `from_timestamp` to `to_timestamp`. Real data sets have
frames of discarded takes, timestamps that drift, and lost last frames.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from robossl.data.source import Damaged

MAX_MISSING_FRAMES = 2  # encoders lose the last frame or two; the rows without a frame are left out
SAME_LENGTH = 0.75  # frames; a stated part of the video that differs less from the episode's length is as long
ON_FRAME = 0.25  # frames between a stated start and a frame that starts there


@dataclass(frozen=True, slots=True)
class Part:
    """An episode's part of a video as the metadata state it."""

    from_seconds: float
    to_seconds: float  # inf if not stated
    length: int  # rows


@dataclass(frozen=True, slots=True)
class Place:
    """Where an episode's frames are among those of its video, as whole frames, and how many frames there should be."""

    first_frame: int
    num_frames: int
    num_in_file: int  # up to the end of the last episode
    has_gaps: bool  # parts of the video belong to no episode
    first_by_length: int  # if every episode had a frame for each row and nothing stood between them
    num_by_length: int


def places_in_file(parts: Sequence[Part], frames_per_s: float) -> list[Place]:
    """Count the frames of the episodes of one video, given in the order of their times.

    Adding up whole frames undoes a drift of the timestamps, which grows over the episodes of a file.
    """
    counted: list[tuple[int, int, int]] = []
    position = round(parts[0].from_seconds * frames_per_s)
    by_length, has_gaps = 0, position > 0
    for number, part in enumerate(parts):
        following = parts[number + 1].from_seconds if number + 1 < len(parts) else math.inf
        end = min(part.to_seconds, following)
        stated = (end - part.from_seconds) * frames_per_s
        is_as_long = end == math.inf or abs(stated - part.length) < SAME_LENGTH
        num_frames = part.length if is_as_long else max(0, round(stated))
        counted.append((position, num_frames, by_length))
        gap = round((following - end) * frames_per_s) if end < following < math.inf else 0
        position, by_length = position + num_frames + gap, by_length + part.length
        has_gaps |= gap > 0
    return [Place(first, num, position, has_gaps, simple, by_length) for first, num, simple in counted]


def drift_frames(part: Part, place: Place, frames_per_s: float) -> float:
    """How far the stated start is from the counted one."""
    return part.from_seconds * frames_per_s - place.first_frame


def frames_of_part(times: Sequence[float], part: Part, place: Place, frames_per_s: float) -> range:
    """The frames of an episode among those of its video, whose times are given.

    Raises:
        Damaged: times and counts disagree.
    """
    if len(times) == place.num_by_length and abs(place.num_frames - part.length) <= MAX_MISSING_FRAMES:
        return range(place.first_by_length, place.first_by_length + part.length)
    surplus = len(times) - place.num_in_file
    num_by_time = round(times[-1] * frames_per_s) + 1 if times else 0
    num_short = place.num_in_file - max(len(times), num_by_time)
    if (surplus > 0 and not place.has_gaps) or num_short > MAX_MISSING_FRAMES:
        raise Damaged(
            f"the video has {len(times)} frames, its episodes take {place.num_in_file}: which frames belong to which "
            "rows is not known"
        )
    end, half = place.first_frame + place.num_frames, 0.5 / frames_per_s
    if surplus == 0:
        return range(place.first_frame, end)
    first = bisect_left(times, part.from_seconds - half)
    if first == len(times) or abs(times[first] - part.from_seconds) * frames_per_s > ON_FRAME:
        raise Damaged(f"the video has no frame at {part.from_seconds:.3f} s, where the episode starts")
    if (found := round(times[first] * frames_per_s)) != place.first_frame:
        raise Damaged(
            f"from_timestamp says frame {found} of the video, the lengths of the episodes before say "
            f"{place.first_frame}: which is right is not known"
        )
    return range(first, bisect_left(times, end / frames_per_s - half))


def rows_in_order(frame_index: Sequence[int | None]) -> list[int]:
    """The rows of an episode in the order of their frames; as they stand if `frame_index` says nothing.

    Raises:
        Damaged: a row is there twice, or one between the others is missing.
    """
    numbers = [number for number in frame_index if number is not None]
    if len(numbers) < len(frame_index) or len(set(numbers)) == 1:
        return list(range(len(frame_index)))
    if len(set(numbers)) < len(numbers):
        raise Damaged(f"{len(numbers)} rows have {len(set(numbers))} different frame_index: which to use is not known")
    if max(numbers) - min(numbers) + 1 != len(numbers):
        raise Damaged(f"{len(numbers)} rows for frame_index {min(numbers)} to {max(numbers)}: some are missing")
    return sorted(range(len(numbers)), key=numbers.__getitem__)


def rows_of_frames(times: Sequence[float], start_seconds: float, num_rows: int, frames_per_s: float) -> list[int]:
    """The row of each frame of an episode; if frames are missing, their times tell which.

    Raises:
        Damaged: more frames than rows, or too few.
    """
    num_frames = len(times)
    if num_frames == num_rows:
        return list(range(num_rows))
    if num_frames > num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows: which frames are extra is not known")
    if num_frames == 0 or num_frames + MAX_MISSING_FRAMES < num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows")
    if (times[0] - start_seconds) * frames_per_s > num_rows - num_frames + 0.5:
        start_seconds = times[0]  # a clock of its own, no missing frames
    rows: list[int] = []
    row, before = -1, start_seconds - 1 / frames_per_s
    for seconds in times:
        row += max(1, math.floor((seconds - before) * frames_per_s + 0.25))
        rows.append(row)
        before = seconds
    if rows[-1] >= num_rows:
        raise Damaged(f"video has {num_frames} frames for {num_rows} rows, the last at the time of row {rows[-1]}")
    return rows
