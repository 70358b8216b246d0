"""The frames of a probe: the interface that every source of frames implements, and the types for labels and splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Float, Int, UInt8
from numpy import ndarray

# If a source has an order in time, each frame that is probed has at least this many earlier frames.
LATENCY_FRAMES = 8
RECORDED = "recorded scenes cannot be changed; probe on env:robossl/Push-v0 too"
LabelType = Literal["class", "point", "angle", "pose", "box"]


@dataclass(frozen=True, slots=True)
class Label:
    """The values of one label (such as a pose) that a head predicts from features of frames.

    Args:
        type: What a row of `values` holds. "class": an integer. "point": x (right) and y (down) in [-1, 1], in units
            of half the width and half the height. "angle": radians, counter-clockwise as seen in the frame. "pose":
            camera to world, as a position in metres and a unit quaternion (x, y, z, w). "box": x and y of the centre,
            width and height, in the unit of "point".
        values: A row for each frame. A row of nan stands for a frame without this label.
        classes: Names of the classes, if the type is "class".
        mirrored: For each class, the number of the class that it becomes in a mirror image, if classes name sides (such
            as left and right). None for all other labels.
    """

    type: LabelType
    values: Float[ndarray, "n k"]
    classes: tuple[str, ...] = ()
    mirrored: tuple[int, ...] | None = None


class ProbeFrames(Protocol):
    """Frames of one size with their labels. The position of a frame is its index among all frames, from 0."""

    name: str
    digest: str  # hash that identifies pixels and labels
    hw: tuple[int, int]  # height and width in pixels
    # For each frame, the id of its cluster: the independent unit (an episode, scene or picture) that it comes from.
    clusters: Int[ndarray, " n"]
    cluster_key: str  # what a cluster is, such as "episode"
    labels: Mapping[str, Label]
    notes: tuple[str, ...]  # lines of text that say which frames or labels were left out

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return the unchanged frames at these positions."""
        ...

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return for each position the frame that the camera took `frames` frames earlier.

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
        """Return for each position the homography by which the method `scene` moves points on the ground.

        Points are in the coordinates of labels: x right, y down, -1 to 1 over the width and the height.

        Raises:
            ViewUnavailableError: the source cannot change its scenes.
        """
        ...


class ViewUnavailableError(Exception):
    """Raised for a factor that cannot be rendered for these frames. The report prints the message as the reason."""


@dataclass(frozen=True, slots=True)
class Split:
    """Positions of the reference frames and of the judged frames. No cluster (such as an episode) is in both."""

    reference: Int[ndarray, " r"]  # positions of the frames on which statistics and heads are fitted
    evaluation: Int[ndarray, " e"]  # positions of the frames on which the encoder is judged
