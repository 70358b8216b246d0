"""A factor: a change of a frame at each strength, and the number that a probe decodes.

`values` has a row for each frame: first the strength in the unit of the factor, then random numbers in [0, 1) for the
rest (a direction, a place). A view depends only on the frame and its row of values, not on the batch.
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
    """One factor.

    Args:
        name: the name in FACTORS and in task profiles.
        title: the name on pages.
        unit: unit of the strength.
        family: photometric, geometric, scene or temporal.
        clean: the strength that changes nothing.
        sides: the strengths of each level, mild to severe; two such rows if the factor has two sides.
        apply: renders the views of frames at some positions.
        base: the cut of every view of the factor, also the clean one: "plain": none; "disc": a disc as wide as the
            shorter side; "resampled": a disc, after `warp_frames`; "square": a disc in a square.
        warp: how points move: a homography from frame to view in the coordinates of labels (x right, y down, -1 to 1),
            computed from the values and the height and width of the frame.
        num_draws: count of random numbers after the strength in `values`.
        scale: the scale in which the strength of a two-sided factor is drawn evenly and decoded.
        classes: names of clean and of the levels, for factors with kinds instead of strengths.
        target: what is decoded, if it is not the strength.
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
        """Whether the strength has two sides."""
        return len(self.sides) == 2

    @property
    def num_levels(self) -> int:
        """Five; fewer for factors with kinds."""
        return len(self.sides[0])

    @property
    def num_classes(self) -> int:
        """The number of decoded classes; 0 if a number is decoded."""
        return 0 if self.signed else len(self.classes) or 2

    def strengths(self, level: int) -> tuple[float, ...]:
        """Return the strength of a level on each side."""
        return tuple(side[level - 1] for side in self.sides)

    def draw(self, level: int, at: Int[ndarray, " b"], *, seed: int, draw: Draw) -> Values:
        """Draw the values of frames at some positions, as a function of seed, factor, level, draw and position.

        Draw "level" gives the strength of the level on a random side. Draw "decode" spreads it: evenly between the two
        sides, or clean and the level equally often, or every kind equally often (at any level).
        The other random numbers are the same at each level, so levels differ only in strength.
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
        """Return values that change nothing."""
        values: Values = np.full((num_frames, 1 + self.num_draws), 0.5)
        values[:, 0] = self.clean
        return values

    def targets(self, values: Values) -> Float[ndarray, "b t"]:
        """Return what is decoded: a class if `num_classes` > 0, else one or more numbers that are 0 if clean."""
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
    """Return two sides of opposite sign."""
    return tuple(-each for each in strengths), strengths


def on_pixels(change: Callable[[UInt8[ndarray, "b h w 3"], Values], UInt8[ndarray, "b h w 3"]]) -> Apply:
    """Return the `apply` of a factor that needs only the pixels of the frame."""

    def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        return change(frames.clean(at), values)

    return apply


def draw_direction(drawn: Float[ndarray, " b"]) -> tuple[Float[ndarray, " b"], Float[ndarray, " b"]]:
    """Return cosine and sine of an angle, from a number drawn evenly in [0, 1)."""
    return np.cos(2 * math.pi * drawn), np.sin(2 * math.pi * drawn)
