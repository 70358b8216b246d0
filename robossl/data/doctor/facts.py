"""What the checks of `robossl doctor data` look at: tables, videos and decoded small frames of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8
from numpy import ndarray

from robossl.data.manifest import Problem
from robossl.data.pictures import grey_difference

MOMENTS = 8  # frames by which episodes are compared


@dataclass(frozen=True, slots=True)
class TableFacts:
    """The rows of one recorded episode. An episode of several cameras has one table."""

    episode: str
    split: str = ""
    num_stated: int | None = None  # number of rows that the metadata states
    seconds: Float64[ndarray, " n"] | None = None  # time of each row
    columns: dict[str, Float32[ndarray, "n d"]] = field(default_factory=dict)
    content: str = ""  # hash of the rows or of the file; equal content has an equal hash


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """The frames of one episode and camera, as the container states them; nothing is decoded."""

    episode: str
    num_expected: int | None = None  # number of rows or frames that the frames must match
    seconds: Float64[ndarray, " n"] | None = None  # time of each frame
    row_seconds: Float64[ndarray, " n"] | None = None  # times of the rows of these frames, by the same clock
    damage: str = ""
    camera: str = ""
    size: str = ""  # width x height in pixels, as the container states it


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What the checks need of the decoded frames of one episode and camera; no frame is kept but a few small ones."""

    episode: str
    split: str
    camera: str
    size: str  # width x height in pixels
    seconds: Float64[ndarray, " n"]
    end_seconds: float  # time of the last frame, even if the store dropped it as a repetition
    brightness: float  # mean grey level
    darkest: UInt8[ndarray, " n"]  # smallest grey level of each small frame
    brightest: UInt8[ndarray, " n"]
    motion: Float32[ndarray, " n_minus_1"]  # mean absolute difference of neighbouring small frames, in grey levels
    moments: UInt8[ndarray, "moments h w"]  # `MOMENTS` small frames, spread evenly
    repeats: Bool[ndarray, " n"]  # whether all pixels equal those of the frame before

    @property
    def frames_per_s(self) -> float:
        """Frames per second by the median step; 0 for a single frame."""
        steps = np.diff(self.seconds)
        steps = steps[steps > 0]
        return 1 / float(np.median(steps)) if len(steps) else 0.0


@dataclass(frozen=True, slots=True)
class DataFacts:
    """All facts about a data set."""

    path: str
    format: str  # format of the source, or "store"
    licences: tuple[str, ...]
    num_episodes: int
    tables: list[TableFacts]
    videos: list[VideoFacts]
    pictures: list[PictureFacts]
    skipped: tuple[Problem, ...] = ()  # files that ingest would leave out
    notes: tuple[Problem, ...] = ()  # files that ingest would read with a correction
    frames_per_s: float | None = None  # frames per second that the metadata states
    sizes: dict[str, str] = field(default_factory=dict)  # camera -> width x height that the metadata states
    is_thinned: bool = False  # whether a store lacks near-equal frames (`robossl ingest --thin`)

    @property
    def is_store(self) -> bool:
        """Whether the data set is a store, from which ingest has removed repeated frames."""
        return self.format == "store"


def reduce_frames(
    unit: tuple[str, str, str, str],
    small: UInt8[ndarray, "n h w"],
    *,
    seconds: Float64[ndarray, " n"],
    end_seconds: float,
    repeats: Bool[ndarray, " n"],
) -> PictureFacts:
    """Reduce the small frames of an episode to what the checks need: some bytes for each frame.

    Args:
        unit: name of the episode, split, camera, and size of the decoded frames.
        small: small frames in grey.
        seconds: time of each frame.
        end_seconds: time of the last frame, even if the store dropped it as a repetition.
        repeats: whether all pixels equal those of the frame before.
    """
    motion = [grey_difference(before, after) for before, after in pairwise(small)]
    return PictureFacts(
        *unit,
        seconds,
        end_seconds,
        brightness=float(small.mean()),
        darkest=small.min((1, 2)),
        brightest=small.max((1, 2)),
        motion=np.array(motion, np.float32),
        moments=small[np.linspace(0, len(small) - 1, MOMENTS).round().astype(int)],
        repeats=repeats,
    )


def find_runs(flags: Bool[ndarray, " n"]) -> list[tuple[int, int]]:
    """Return the (first, end) indices of each stretch of true flags.

    >>> find_runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
