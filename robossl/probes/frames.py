"""Define the frames of a probe: the interface that every source of frames implements, their labels and their split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

LATENCY_FRAMES = 8  # every frame of a probe has at least so many frames before it, if its source has time
RECORDED = "recorded scenes cannot be changed; probe on env:robossl/Push-v0 too"
LabelType = Literal["class", "point", "angle", "pose", "box"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label that a head reads off a frame.

    Args:
        type: What a row of `values` holds. "class": an integer. "point": x (right) and y (down) in [-1, 1], in units
            of half the width and half the height. "angle": radians, counter-clockwise as seen in the frame. "pose":
            camera to world, as a position in metres and a unit quaternion (x, y, z, w). "box": x and y of the centre,
            width and height, in the unit of "point".
        values: A row for each frame; nan if the frame has no label.
        classes: Names of the classes, if the type is "class".
        mirrored: For classes that name sides, such as left and right: the class that each class becomes in a mirror
            image. None for all other labels.
    """

    type: LabelType
    values: Float[ndarray, "n k"]
    classes: tuple[str, ...] = ()
    mirrored: tuple[int, ...] | None = None


class ProbeFrames(Protocol):
    """Frames of one size with their labels. A frame is addressed by its position: an index from 0."""

    name: str
    digest: str  # hash that identifies pixels and labels
    hw: tuple[int, int]  # height and width in pixels
    clusters: Int[ndarray, " n"]  # id of the independent unit that each frame belongs to: an episode, scene or picture
    cluster_key: str  # name of that unit, such as "episode"
    labels: Mapping[str, Label]
    notes: tuple[str, ...]  # lines of text that say which frames or labels were left out

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return the unchanged frames at these positions."""
        ...

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return for each position the frame that was taken `frames` frames earlier, as a camera with latency shows it.

        Raises:
            ViewUnavailableError: the frames of the source have no order in time.
        """
        ...

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """Return the frames at these positions, rendered again with one factor of the scene at a strength of 1 to 5.

        Raises:
            ViewUnavailableError: the source cannot change its scenes.
        """
        ...

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Return homographies that say how `scene` moves points on the ground, in the coordinates of labels.

        Raises:
            ViewUnavailableError: the source cannot change its scenes.
        """
        ...


class ViewUnavailableError(Exception):
    """A factor cannot be rendered for these frames. The report prints the message as the reason."""


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the frames of each side of the split; no cluster (such as an episode) is in both sides."""

    reference: Int[ndarray, " r"]  # frames on which statistics and heads are fitted
    evaluation: Int[ndarray, " e"]  # frames that are judged
