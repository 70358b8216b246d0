"""A factor: what is done to a frame at each strength, and the number that a probe tries to read back.

`values` hold one row a frame: first the strength in the factor's own unit, then numbers in [0, 1) that decide what else
is drawn (a direction, a place). A view depends on the frame and its row of values alone, whatever batch it is in.
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
        name: as in FACTORS and in task profiles.
        title: for people.
        unit: of the strength.
        family: photometric, geometric, scene or temporal.
        clean: strength that changes nothing.
        sides: strengths of level 1 on, mild to severe; a second side where a factor has two.
        apply: makes the views of frames at some positions.
        base: what every view of the factor is cut to, the clean ones too: "plain": nothing; "disc": a disc as wide as
            the shorter side; "resampled": a disc, after passing through `warped`; "square": a disc in a square.
        warp: where points go: a homography from the frame to the view, both in the coordinates of labels (x right and y
            down, -1 to 1), from the values and the frame's height and width.
        num_draws: how many numbers follow the strength in `values`.
        scale: in what the strength of a two-sided factor is drawn evenly and read back.
        classes: names of clean and of the levels, for factors whose levels are kinds rather than strengths.
        target: what is read back where that is not the strength.
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
        """Five; fewer for kinds."""
        return len(self.sides[0])

    @property
    def num_classes(self) -> int:
        """How many classes are read back; 0 where a number is."""
        return 0 if self.signed else len(self.classes) or 2

    def strengths(self, level: int) -> tuple[float, ...]:
        """The strength of a level on each side."""
        return tuple(side[level - 1] for side in self.sides)

    def draw(self, level: int, at: Int[ndarray, " b"], *, seed: int, draw: Draw) -> Values:
        """The values of frames at some positions, a function of seed, factor, level, draw and position.

        Draw "level" is the strength of the level on a side that is drawn. Draw "decode" spreads it: evenly between the
        two sides, or clean and the level equally often, or every kind equally often (whatever the level is).
        What is drawn beside the strength is the same at each level, so that levels differ in strength alone.
        """
        key = (seed, zlib.crc32(self.name.encode()), ("level", "decode").index(draw))
        count = 1 + self.num_draws
        drawn = np.array([np.random.default_rng((*key, int(position))).random(count) for position in at])
        values: Values = drawn.reshape(len(at), count)
        strengths = np.array(self.strengths(level))
        if draw == "decode" and self.signed:
            low, high = sorted(self._scaled(strengths).tolist())
            values[:, 0] = self._unscaled(low + (high - low) * values[:, 0])
            return values
        if draw == "decode":
            strengths = np.array((self.clean, *(self.sides[0] if self.classes else strengths)))
        values[:, 0] = strengths[(values[:, 0] * len(strengths)).astype(int)]
        return values

    def clean_values(self, num_frames: int) -> Values:
        """Values that change nothing."""
        values: Values = np.full((num_frames, 1 + self.num_draws), 0.5)
        values[:, 0] = self.clean
        return values

    def targets(self, values: Values) -> Float[ndarray, "b t"]:
        """What a probe reads back: a class for `num_classes` > 0, else one or more numbers, 0 where clean."""
        if self.target is not None:
            return self.target(values)
        if self.signed:
            clean = self._scaled(np.array([self.clean]))
            found: Float[ndarray, "b t"] = self._scaled(values[:, :1]) - clean
            return found
        if self.classes:
            kinds = np.array((self.clean, *self.sides[0]))
            return np.asarray(np.abs(values[:, :1] - kinds).argmin(1, keepdims=True), float)
        return np.asarray(values[:, :1] != self.clean, float)

    def _scaled(self, strength: ndarray) -> ndarray:
        match self.scale:
            case "log":
                return np.asarray(np.log(strength))
            case "mired":
                return np.asarray(1e6 / strength)
            case "linear":
                return strength

    def _unscaled(self, number: ndarray) -> ndarray:
        match self.scale:
            case "log":
                return np.asarray(np.exp(number))
            case "mired":
                return np.asarray(1e6 / number)
            case "linear":
                return number


def both(*strengths: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Two sides that mirror each other."""
    return tuple(-each for each in strengths), strengths


def on_pixels(change: Callable[[UInt8[ndarray, "b h w 3"], Values], UInt8[ndarray, "b h w 3"]]) -> Apply:
    """The `apply` of a factor that needs nothing but the pixels of the frame."""

    def apply(frames: ProbeFrames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        return change(frames.clean(at), values)

    return apply


def direction(drawn: Float[ndarray, " b"]) -> tuple[Float[ndarray, " b"], Float[ndarray, " b"]]:
    """Cosine and sine of an angle drawn evenly."""
    return np.cos(2 * math.pi * drawn), np.sin(2 * math.pi * drawn)
