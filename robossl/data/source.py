"""What a foreign format must offer to be ingested: a cheap list of units, and the frames of one unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from robossl.data.manifest import Problem


class Damaged(Exception):
    """A unit cannot be read; the text is the reason that is shown and kept in the manifest."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source may be told about how to read it."""

    label_columns: tuple[str, ...] | None = None  # columns of the csv that are labels; by default those that look it
    image_folders: Literal["auto", "images", "episodes"] = "auto"  # what a folder of numbered images is
    image_fps: float = 10.0  # frames a second of a folder of images


@dataclass(frozen=True, slots=True)
class Unit:
    """One episode as listed, before it is read: a video, an image, a camera of a recorded episode."""

    key: str  # unique in its source; units are stored in the order of their keys
    fingerprint: str  # changes when the content may have changed
    num_frames: int  # an estimate where the exact count would need decoding
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    address: dict[str, str | int | float] = field(default_factory=dict)  # where `Source.frames` finds it


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    pixels: UInt8[ndarray, "h w 3"]  # RGB
    time_seconds: float = 0.0  # since the first frame of the episode
    columns: dict[str, Float32[ndarray, " d"]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a source holds. Units are in the order of their keys."""

    units: list[Unit]
    skipped: tuple[Problem, ...] = ()  # left out, and why
    notes: tuple[Problem, ...] = ()  # taken with a correction, and which
    columns: dict[str, int] = field(default_factory=dict)  # width of each per-frame column
    said: tuple[str, ...] = ()  # what was decided in reading it, for the user to see


class Source(Protocol):
    """One foreign format. A source is made anew in every worker process, so it may keep files open."""

    def __init__(self, root: Path, labels: Path | None = None, reading: Reading | None = None) -> None: ...

    @staticmethod
    def accepts(root: Path) -> bool:
        """Whether `root` looks like this format; asked in the order of `SOURCES`."""
        ...

    def listing(self) -> Listing:
        """Find the units without decoding any.

        Raises:
            InputError: nothing here can be read, or the labels match nothing.
        """
        ...

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """The frames of one unit in time order, one at a time.

        Raises:
            Damaged: the unit cannot be read to its end.
        """
        ...


def same_frame(a: Frame, b: Frame) -> bool:
    """Whether two frames carry the same pixels and the same per-frame columns."""
    return np.array_equal(a.pixels, b.pixels) and all(
        np.array_equal(value, b.columns[name]) for name, value in a.columns.items()
    )
