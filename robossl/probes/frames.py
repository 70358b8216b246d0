"""The frames of a probe: the interface of every source, and the split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

LATENCY_FRAMES = 8  # frames that come before each frame, if the source has time
RECORDED = "recorded scenes cannot be changed; probe on env:robossl/Push-v0 too"
LabelType = Literal["class", "point", "angle", "pose", "box"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a head reads off a frame.

    Args:
        type: class: an integer; point: x and y in [-1, 1], right and down, in units of half the width and height;
            angle: radians, counter-clockwise as seen in the frame; pose: camera to world, as position in metres and a
            unit quaternion (x, y, z, w); box: x, y, width and height in the unit of `point`.
        values: one row for each frame; nan if a frame has no label.
        classes: names of the classes of a label of type class.
        mirrored: for classes such as left and right: the class that each becomes in a mirror image.
    """

    type: LabelType
    values: Float[ndarray, "n k"]
    classes: tuple[str, ...] = ()
    mirrored: tuple[int, ...] | None = None


class ProbeFrames(Protocol):
    """Frames of one size, addressed by position, with their labels."""

    name: str
    digest: str  # identifies pixels and labels
    hw: tuple[int, int]
    clusters: Int[ndarray, " n"]  # the independent unit of each frame: episode, scene or picture
    cluster_key: str  # name of that unit
    labels: Mapping[str, Label]
    notes: tuple[str, ...]  # what was left out, in words

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return unchanged frames."""
        ...

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return the frame that many frames earlier: what a camera with that latency shows.

        Raises:
            ViewUnavailableError: the source has no time.
        """
        ...

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """Return the same moments with one factor of the scene at a strength of 1 to 5.

        Raises:
            ViewUnavailableError: the source cannot change its scenes.
        """
        ...

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Return how `scene` moves points on the ground: homographies in the coordinates of labels.

        Raises:
            ViewUnavailableError: the source cannot change its scenes.
        """
        ...


class ViewUnavailableError(Exception):
    """These frames cannot show a factor; the report prints the message as the reason."""


@dataclass(frozen=True, slots=True)
class Split:
    """Positions for fitting statistics and heads, and positions that are judged; no cluster is in both."""

    reference: Int[ndarray, " r"]
    evaluation: Int[ndarray, " e"]
