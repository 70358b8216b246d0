"""Nuisance factors: changes of a scene that do not change the task, each at five strengths.

Factors that also exist in THE COLOSSEUM (arXiv:2402.08191) have the same names (`manip_object_*`,
`receiver_object_*`, `light_*`, `table_*`). Many values are the same as in the image factors of the invariance probes.
Strength 0 is the clean (unchanged) scene, and strength 5 is the hardest. Some factors have two sides, such as darker
and brighter. Each episode gets one side at random.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

STRENGTHS = 5


@dataclass(frozen=True, slots=True)
class NuisanceFactor:
    """A nuisance factor: its value in the clean (unchanged) scene, and five values from mild to hard for each side.

    A factor has one side, or two sides that change the scene in opposite directions, such as darker and brighter.
    """

    about: str
    clean: float
    sides: tuple[tuple[float, ...], ...]

    def value(self, strength: int, rng: Generator) -> float:
        """Return the factor's value at a strength of 0 to 5.

        If the factor has two sides, such as darker and brighter, choose one of them at random.
        """
        # Choose a side (such as darker) even at strength 0, so that later random numbers do not depend on the strength.
        side = int(rng.integers(len(self.sides)))
        return self.sides[side][strength - 1] if strength else self.clean

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest value, including the value in the clean (unchanged) scene."""
        values = [self.clean, *(value for side in self.sides for value in side)]
        return min(values), max(values)

    @property
    def whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(value, int) for value in (self.clean, *(value for side in self.sides for value in side)))


def _both(*values: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(-value for value in values), values


FACTORS: dict[str, NuisanceFactor] = {
    "brightness": NuisanceFactor("gain of all light", 1.0, ((0.8, 0.6, 0.45, 0.3, 0.2), (1.15, 1.3, 1.5, 1.75, 2.0))),
    "light_color": NuisanceFactor(
        "colour temperature of the light, K",
        6500.0,
        ((5500, 4500, 3800, 3200, 2700), (7500, 9000, 11000, 14000, 20000)),
    ),
    "light_direction": NuisanceFactor("turn of the light about the table, degrees", 0.0, _both(15, 30, 60, 90, 180)),
    "shadow": NuisanceFactor("depth of a shadow cast across the table", 0.0, ((0.2, 0.35, 0.5, 0.6, 0.7),)),
    "table_color": NuisanceFactor("turn of the table's hue", 0.0, _both(0.03, 0.08, 0.15, 0.25, 0.4)),
    "table_texture": NuisanceFactor("how far another texture replaces the table's", 0.0, ((0.2, 0.4, 0.6, 0.8, 1.0),)),
    "manip_object_color": NuisanceFactor("turn of the hue of what is moved", 0.0, _both(0.02, 0.05, 0.1, 0.2, 0.35)),
    "manip_object_texture": NuisanceFactor("contrast of a texture on what is moved", 0.0, ((0.2, 0.4, 0.6, 0.8, 1.0),)),
    "manip_object_size": NuisanceFactor(
        "size of what is moved", 1.0, ((0.95, 0.9, 0.85, 0.8, 0.75), (1.05, 1.1, 1.15, 1.2, 1.25))
    ),
    "receiver_object_color": NuisanceFactor("turn of the target's hue", 0.0, _both(0.02, 0.05, 0.1, 0.2, 0.35)),
    "distractors": NuisanceFactor("objects that do not matter, beside the workspace", 0, ((1, 2, 4, 6, 8),)),
    "occluder": NuisanceFactor("share of the picture hidden from one side", 0.0, ((0.02, 0.05, 0.1, 0.2, 0.35),)),
    "camera_shift": NuisanceFactor("shift of the view, in views", 0.0, ((0.02, 0.04, 0.08, 0.12, 0.16),)),
    "camera_rotation": NuisanceFactor("roll of the camera, degrees", 0.0, _both(3, 7, 15, 30, 60)),
    "camera_zoom": NuisanceFactor("magnification", 1.0, ((0.95, 0.87, 0.8, 0.7, 0.6), (1.05, 1.15, 1.3, 1.45, 1.6))),
    "camera_perspective": NuisanceFactor(
        "tilt of the camera: shift of corners, in views", 0.0, ((0.02, 0.05, 0.1, 0.15, 0.2),)
    ),
    "blur": NuisanceFactor(
        "standard deviation of a Gaussian blur, in views", 0.0, ((0.001, 0.002, 0.004, 0.007, 0.012),)
    ),
    "noise": NuisanceFactor("standard deviation of pixel noise, of 1", 0.0, ((0.01, 0.03, 0.06, 0.12, 0.18),)),
    "latency": NuisanceFactor("age of the picture, in steps", 0, ((1, 2, 3, 5, 8),)),
    "robot_start": NuisanceFactor(
        "distance of the tool's start from its home, m", 0.0, ((0.03, 0.06, 0.1, 0.15, 0.2),)
    ),
}


# Largest strengths where the scene varies: light, table, things beside the work, and a camera that was touched.
VARIED = {
    "brightness": 2,
    "light_color": 2,
    "light_direction": 2,
    "shadow": 1,
    "table_color": 2,
    "table_texture": 2,
    "distractors": 2,
    "camera_shift": 1,
    "camera_rotation": 1,
    "camera_zoom": 1,
}


def effective_factors(bodies: Sequence[str], *, home: bool) -> tuple[str, ...]:
    """Return the names of the factors that have an effect in a task.

    If the task has no bodies (objects that can be moved), the factors of moved objects have no effect. If its tool
    starts anywhere and not at home, `robot_start` has none.
    """
    without = {name for name in FACTORS if name.startswith("manip_object") and not bodies}
    without |= set() if home else {"robot_start"}
    return tuple(name for name in FACTORS if name not in without)


def draw_values(
    options: Mapping[str, Any], rng: Generator, *, names: Collection[str] = tuple(FACTORS)
) -> dict[str, float]:
    """Choose the value of every factor for one episode at random.

    Args:
        options: `strengths` maps factors to strengths of 0 to 5, or is "random", which gives every factor a random
            strength. `factors` maps factors to values. All other factors get the value of the clean scene.
        rng: the episode's generator.
        names: names of the factors that have an effect in the task.

    Raises:
        ValueError: `options` name an unknown factor or a factor without effect in the task, an invalid strength, a
            value outside the factor's bounds, or a fraction for a factor of whole numbers.
    """
    strengths = options.get("strengths", {})
    if strengths == "random":
        # Draw for factors without effect too, so that scenes do not depend on the task. `robot_start` came later: it
        # is drawn only where it has an effect, so that earlier scenes stay as they were.
        drawn = {n: int(rng.integers(STRENGTHS + 1)) for n in FACTORS if n != "robot_start" or n in names}
        strengths = {name: drawn[name] for name in names}
    given = options.get("factors", {})
    for name in (*strengths, *given):
        if name not in FACTORS:
            raise ValueError(f"unknown factor {name!r}; choose from {', '.join(names)}")
        if name not in names:
            raise ValueError(f"{name} has no effect in this environment; choose from {', '.join(names)}")
    values = {}
    for name, factor in FACTORS.items():
        strength = strengths.get(name, 0)
        if strength not in range(STRENGTHS + 1):
            raise ValueError(f"strength of {name} must be a whole number from 0 to {STRENGTHS}, got {strength!r}")
        values[name] = factor.value(int(strength), rng)
    for name, value in given.items():
        low, high = FACTORS[name].bounds
        if not low <= value <= high:
            raise ValueError(f"{name} must lie between {low:g} and {high:g}, got {value!r}")
        if FACTORS[name].whole and float(value) % 1:
            raise ValueError(f"{name} must be a whole number from {low:g} to {high:g}, got {value!r}")
        values[name] = float(value)
    return values


def draw_strengths(largest: Mapping[str, int], rng: Generator) -> dict[str, int]:
    """Draw a strength from 0 to the largest for each factor."""
    return {name: int(rng.integers(strength + 1)) for name, strength in largest.items()}


def factor_vector(values: Mapping[str, float]) -> Float32[ndarray, " f"]:
    """Return the values of all factors as a vector, in the order of FACTORS."""
    return np.array([values[name] for name in FACTORS], np.float32)
