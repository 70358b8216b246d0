"""The interface of a task: the initial layout, the reward, and a scripted expert."""

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
    """The initial state of an episode."""

    tool: tuple[float, float]  # position of the tool, metres
    bodies: Mapping[str, tuple[Body, Pose]]
    objects: Mapping[str, SceneObject]  # how each body looks
    markings: tuple[tuple[SceneObject, Pose], ...]  # objects without height, drawn flat on the table
    target: tuple[float, ...]  # numbers that say where the target is; they are the end of the state vector


@dataclass(frozen=True, slots=True)
class Score:
    """Reward and success of a state."""

    reward: float  # dense reward: about -1 to 0, or 1 on success
    success: bool


class TabletopTask(Protocol):
    """A task on the table."""

    @property
    def target_dim(self) -> int:
        """Length of `EpisodeStart.target`."""
        ...

    @property
    def bodies(self) -> tuple[str, ...]:
        """Names of the bodies that can be pushed, in the order of the state vector."""
        ...

    def start(self, rng: Generator, values: Mapping[str, float]) -> EpisodeStart:
        """Choose the initial state at random. Sizes and colours follow `values`, the values of the nuisance factors."""
        ...

    def score(self, world: World, start: EpisodeStart) -> Score:
        """Return reward and success of the current state."""
        ...

    def expert(self, world: World, start: EpisodeStart) -> Action:
        """Return the action of the scripted expert: a velocity of the tool, in fractions of full speed."""
        ...
