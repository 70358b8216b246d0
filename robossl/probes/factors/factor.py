"""Factor: one kind of change of a frame, such as brightness, and what a probe decodes from features of changed frames.

An array `values` says how to change frames, with a row for each frame. A row holds first the strength in the unit of
the factor, then random numbers in [0, 1) for other choices (such as a direction or a place). A view (the
changed frame) depends only on the frame and its row of values, not on the batch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.probes.frames import ProbeFrames
from robossl.probes.result import Family

Draw = Literal["level", "decode"]
Base = Literal["plain", "disc", "resampled", "square"]
Scale = Literal["linear", "log", "mired"]
Values = Float[ndarray, "b k"]
Apply = Callable[[ProbeFrames, Int[ndarray, " b"], Values], UInt8[ndarray, "b h w 3"]]
Warp = Callable[[Values, tuple[int, int]], Float[ndarray, "b 3 3"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One kind of change of a frame, such as brightness.

    Args:
        name: name in FACTORS and in task profiles.
        title: name on report pages.
        unit: unit of the strength.
        family: photometric, geometric, scene or temporal.
        clean: strength that changes nothing.
        sides: a row for each side of the factor. There is one side, or two such as darker and brighter. A row holds the
            strength of each level, from mild to severe.
        apply: function that renders the views (changed frames) of the frames at some positions of the source.
        base: how frames are cut, in each view of the factor and in the clean view. "plain": not at all. "disc": to a
            disc as wide as the shorter side. "resampled": to that disc, after `warp_frames`. "square": to the centred
            square, then to that disc.
        warp: function that returns how points move, as homographies from frame to view in the coordinates of labels (x
            right, y down, -1 to 1). Its arguments are the values, and the height and width of the frames. None if no
            point moves, or if only the source of the frames knows how points move.
        num_draws: number of random numbers after the strength in a row of `values`.
        scale: scale on which the strength of a factor with two sides is drawn evenly and decoded. "mired" is 1e6 /
            kelvin.
        classes: names of the clean view and of the view at each level, for factors that have kinds (such as turns by 90
            and 180 degrees) instead of strengths.
        target: function that computes from the values what a probe decodes; None if a probe decodes the strength.
    """

    name: str
    title: str
    unit: str
    family: Family
    clean: float
    sides: tuple[tuple[float, ...], ...]
    apply: Apply
    base: Base = "plain"
    warp: Warp | None = None
    num_draws: int = 0
    scale: Scale = "linear"
    classes: tuple[str, ...] = ()
    target: Callable[[Values], Float[ndarray, "b t"]] | None = None

    @property
    def signed(self) -> bool:
        """Whether the strength has two sides, such as darker and brighter."""
        return len(self.sides) == 2

    @property
    def num_levels(self) -> int:
        """Number of levels: five, or fewer for factors that have kinds instead of strengths."""
        return len(self.sides[0])

    @property
    def num_classes(self) -> int:
        """Number of classes that a probe decodes; 0 if it decodes numbers."""
        return 0 if self.signed else len(self.classes) or 2

    def strengths(self, level: int) -> tuple[float, ...]:
        """Return the strengths of a level, one for each side."""
        return tuple(side[level - 1] for side in self.sides)

    def draw(self, level: int, at: Int[ndarray, " b"], *, seed: int, draw: Draw) -> Values:
        """Draw a row of values for each position. The row depends only on seed, factor, level, draw and position.

        With `draw` "level", a row has the strength of the level, on a random side. With `draw` "decode", rows have
        different strengths, which a probe can learn to predict. If the factor has two sides, strengths are spread
        evenly from one side to the other. If it has one side, the clean strength and the strength of the level are
        equally frequent. If it has kinds instead of strengths, all kinds are equally frequent at any level.

        The random numbers after the strength are the same at each level, so levels differ only in strength.
        """
        key = (seed, zlib.crc32(self.name.encode()), ("level", "decode").index(draw))
        count = 1 + self.num_draws
        drawn = np.array([np.random.default_rng((*key, int(position))).random(count) for position in at])
        values: Values = drawn.reshape(len(at), count)
        strengths = np.array(self.strengths(level))
        if draw == "decode" and self.signed:
            low, high = sorted(self._to_scale(strengths).tolist())
            values[:, 0] = self._from_scale(low + (high - low) * values[:, 0])
            return values
        if draw == "decode":
            strengths = np.array((self.clean, *(self.sides[0] if self.classes else strengths)))
        values[:, 0] = strengths[(values[:, 0] * len(strengths)).astype(int)]
        return values

    def clean_values(self, num_frames: int) -> Values:
        """Return rows of values that leave the frames unchanged."""
        values: Values = np.full((num_frames, 1 + self.num_draws), 0.5)
        values[:, 0] = self.clean
        return values

    def targets(self, values: Values) -> Float[ndarray, "b t"]:
        """Return what a probe decodes for each frame: a class if `num_classes` > 0, else numbers (0: clean)."""
        if self.target is not None:
            return self.target(values)
        if self.signed:
            clean = self._to_scale(np.array([self.clean]))
            found: Float[ndarray, "b t"] = self._to_scale(values[:, :1]) - clean
            return found
        if self.classes:
            kinds = np.array((self.clean, *self.sides[0]))
            return np.asarray(np.abs(values[:, :1] - kinds).argmin(1, keepdims=True), float)
        return np.asarray(values[:, :1] != self.clean, float)

    def _to_scale(self, strength: ndarray) -> ndarray:
        match self.scale:
            case "log":
                return np.asarray(np.log(strength))
            case "mired":
                return np.asarray(1e6 / strength)
            case "linear":
                return strength

    def _from_scale(self, number: ndarray) -> ndarray:
        match self.scale:
            case "log":
                return np.asarray(np.exp(number))
            case "mired":
                return np.asarray(1e6 / number)
            case "linear":
                return number


def mirror_strengths(*strengths: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the strengths of two sides: the negatives of the given strengths, and the given strengths."""
    return tuple(-each for each in strengths), strengths


def on_pixels(change: Callable[[UInt8[ndarray, "b h w 3"], Values], UInt8[ndarray, "b h w 3"]]) -> Apply:
    """Return the `apply` of a factor whose `change` needs only the pixels of the frames."""

    def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        return change(frames.clean(at), values)

    return apply


def draw_direction(drawn: Float[ndarray, " b"]) -> tuple[Float[ndarray, " b"], Float[ndarray, " b"]]:
    """Turn numbers drawn evenly from [0, 1) into random directions; return cosines and sines."""
    return np.cos(2 * math.pi * drawn), np.sin(2 * math.pi * drawn)
