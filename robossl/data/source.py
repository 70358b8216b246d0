"""The interface of a source: a class that reads one data format. It lists units (episodes) and reads their frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from robossl.data.manifest import Problem

# Name of the column for the largest time between a frame and its values, in sources that match columns by their time.
GAP_COLUMN = "column_gap_seconds"


class Damaged(Exception):
    """A unit (episode) cannot be read. The text of this error is the reason that the user and the manifest get."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Options for reading a source."""

    label_columns: tuple[str, ...] | None = None  # csv columns that are labels; None: choose by names and values
    image_folders: Literal["auto", "images", "episodes"] = "auto"  # how to read a folder of numbered images
    image_fps: float | None = None  # frames per second of frames without times; None: as the format does, else 10


@dataclass(frozen=True, slots=True)
class Unit:
    """One episode in a listing: a video, an image, or one camera of a recorded episode."""

    key: str  # name of the episode, unique in its source; episodes are stored in key order
    fingerprint: str  # text that changes if the content may have changed
    num_frames: int  # number of frames, estimated if counting them needs decoding
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: dict[str, str | int | float] = field(default_factory=dict)  # where `Source.frames` finds the frames


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    pixels: UInt8[ndarray, "h w 3"]  # RGB
    time_seconds: float = 0.0  # time since the first frame of the episode
    columns: dict[str, Float32[ndarray, " d"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """The units (episodes) of a source, in key order."""

    units: list[Unit]
    skipped: tuple[Problem, ...] = ()  # files that were left out
    notes: tuple[Problem, ...] = ()  # files that are read with a correction
    columns: dict[str, int] = field(default_factory=dict)  # width of each per-frame column
    remarks: tuple[str, ...] = ()  # messages for the user about choices made while listing


class Source(Protocol):
    """Reads one data format. Every worker process makes its own instance, so an instance may keep files open."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None: ...

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` looks like this format.

        If several formats accept `root`, ingest uses the first of them in `SOURCES`.
        """
        ...

    def listing(self) -> Listing:
        """List the units (episodes) without decoding their frames.

        Raises:
            InputError: nothing can be read, or the labels match no file.
        """
        ...

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the frames of one unit (episode) in time order.

        Raises:
            Damaged: the unit cannot be read completely.
        """
        ...


def same_frame(a: Frame, b: Frame) -> bool:
    """Return whether two frames have equal pixels and equal per-frame columns."""
    return np.array_equal(a.pixels, b.pixels) and all(
        np.array_equal(value, b.columns[name]) for name, value in a.columns.items()
    )
