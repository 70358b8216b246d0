"""The frames a probe looks at: what every source of them offers, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

LATENCY_FRAMES = 8  # every frame has so many before it, where its source has time
RECORDED = "recorded scenes cannot be changed; probe on env:robossl/Push-v0 too"
LabelType = Literal["class", "point", "angle", "pose", "box"]


@dataclass(frozen=True, slots=True)
class Label:
    """Something a head shall read off a frame.

    Args:
        type: class: an integer; point: x and y in [-1, 1], right and down, of the frame's half width and half height;
            angle: radians, counter-clockwise as seen in the frame; pose: camera to world, as position in metres and a
            unit quaternion (x, y, z, w); box: x, y, width and height, as `point` and in the same unit.
        values: one row a frame; nan where a frame has none.
        classes: names of the classes of a label of type class.
        mirrored: for classes that name sides, left or right: which class each becomes in a mirror.
    """

    type: LabelType
    values: Float[ndarray, "n k"]
    classes: tuple[str, ...] = ()
    mirrored: tuple[int, ...] | None = None


class ProbeFrames(Protocol):
    """Frames of one size, known by their position, and what is known of each."""

    name: str
    digest: str  # of all that the pixels and labels depend on
    hw: tuple[int, int]
    clusters: Int[ndarray, " n"]  # of the unit that is independent: episode, scene or picture
    cluster_key: str  # what that unit is called
    labels: Mapping[str, Label]
    notes: tuple[str, ...]  # what was left out, for people

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Frames as they are."""
        ...

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """The frames so many frames before each: what a camera with that latency shows.

        Raises:
            Unavailable: the source has no time.
        """
        ...

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """The same moments with one factor of the scene at a strength of 1 to 5.

        Raises:
            Unavailable: the source cannot change its scenes.
        """
        ...

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Where points on the ground go under `scene`: homographies in the coordinates of labels.

        Raises:
            Unavailable: the source cannot change its scenes.
        """
        ...


class UnavailableError(Exception):
    """These frames cannot show a factor; the message is the reason that the report prints."""


@dataclass(frozen=True, slots=True)
class Split:
    """Positions that statistics and heads are fitted on, and positions that are judged; no cluster is in both."""

    reference: Int[ndarray, " r"]
    evaluation: Int[ndarray, " e"]
