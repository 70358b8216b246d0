"""What the checks of `robossl doctor data` look at: tables, videos and decoded small frames of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8
from numpy import ndarray

from robossl.data.manifest import Problem
from robossl.data.pictures import resize_grey

SMALL_HW = (24, 32)  # size of a small frame, in pixels


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
    """The decoded frames of one episode and camera."""

    episode: str
    split: str
    camera: str
    size: str  # width x height in pixels
    seconds: Float64[ndarray, " n"]
    end_seconds: float  # time of the last frame, even if the store dropped it as a repetition
    small: UInt8[ndarray, "n h w"]  # grey
    repeats: Bool[ndarray, " n"]  # whether all pixels equal those of the frame before

    @property
    def frames_per_s(self) -> float:
        """Frames per second by the median step; 0 for a single frame."""
        steps = np.diff(self.seconds)
        steps = steps[steps > 0]
        return 1 / float(np.median(steps)) if len(steps) else 0.0

    @property
    def motion(self) -> Float[ndarray, " n_minus_1"]:
        """Mean absolute difference of neighbouring small frames, in grey levels (0 to 255)."""
        differences: ndarray = np.abs(np.diff(self.small.astype(np.int16), axis=0)).mean((1, 2))
        return differences


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


def small_frame(pixels: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w"]:
    """Return a frame in grey at `SMALL_HW`."""
    return resize_grey(pixels, SMALL_HW)


def find_runs(flags: Bool[ndarray, " n"]) -> list[tuple[int, int]]:
    """Return the (first, end) indices of each stretch of true flags.

    >>> find_runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(first), int(end)) for first, end in edges.reshape(-1, 2)]
