"""What a task is: what lies on the table, what is good, and a hand-written expert."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from numpy.random import Generator

from robossl_envs.scene import Pose, SceneObject
from robossl_envs.world import Body, World

Action = tuple[float, float]


@dataclass(frozen=True, slots=True)
class EpisodeStart:
    """One episode's beginning."""

    tool: tuple[float, float]  # metres
    bodies: Mapping[str, tuple[Body, Pose]]
    things: Mapping[str, SceneObject]  # how each body looks
    markings: tuple[tuple[SceneObject, Pose], ...]  # what is drawn on the table
    target: tuple[float, ...]  # what the state vector says of the target


@dataclass(frozen=True, slots=True)
class Score:
    """How things stand."""

    reward: float  # dense, about -1 to 0, and 1 on success
    success: bool


class TabletopTask(Protocol):
    """One task on the table."""

    @property
    def target_dim(self) -> int:
        """Length of EpisodeStart.target."""
        ...

    @property
    def bodies(self) -> tuple[str, ...]:
        """Names of what can be pushed, in the order of the state vector."""
        ...

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Lay the table; `values` are those of the factors, of which size and colours matter here."""
        ...

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Reward and success of a state."""
        ...

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """What to do now: a velocity in shares of full speed."""
        ...
