"""What a task is: what lies on the table, what is good, and a hand-written expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator

from robossl_envs.scene import Pose, Thing
from robossl_envs.world import Body, World

Action = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Start:
    """One episode's beginning."""

    tool: tuple[float, float]  # metres
    bodies: Mapping[str, tuple[Body, Pose]]
    things: Mapping[str, Thing]  # how each body looks
    markings: tuple[tuple[Thing, Pose], ...]  # what is drawn on the table
    target: tuple[float, ...]  # what the state vector says of the target


@dataclass(frozen=True, slots=True)
class Score:
    """How things stand."""

    reward: float  # dense, about -1 to 0, and 1 on success
    success: bool


class Task(Protocol):
    """One task on the table."""

    @property
    def target_dim(self) -> int:
        """Length of Start.target."""
        ...

    @property
    def bodies(self) -> tuple[str, ...]:
        """Names of what can be pushed, in the order of the state vector."""
        ...

    def start(self, rng: Generator, values: Mapping[str, float]) -> Start:
        """Lay the table; `values` are those of the factors, of which size and colours matter here."""
        ...

    def score(self, world: World, start: Start) -> Score:
        """Reward and success of a state."""
        ...

    def expert(self, world: World, start: Start) -> Action:
        """What to do now: a velocity in shares of full speed."""
        ...
