"""The interfaces of agents.

An actor plays one episode. A learner acts in all episodes and learns from every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from jaxtyping import Bool, Float32, Int64, UInt8
from numpy import ndarray
from numpy.random import Generator

from robossl.errors import InputError


@dataclass(frozen=True, slots=True)
class AgentObservations:
    """The current observations of all environments that wait for an action; one row per environment."""

    slots: Int64[ndarray, " n"]  # index of each row's environment, from 0
    frames: UInt8[ndarray, "n h w 3"]
    states: Float32[ndarray, "n d"]  # state vectors; d is 0 if the environment has none
    started: Bool[ndarray, " n"]  # True for each row that is the first observation of an episode
    embeddings: Float32[ndarray, "n e"] | None = None  # embeddings of `frames`; None if the agent needs no encoder


class Actor(Protocol):
    """An agent for one episode. It runs in a worker process and takes random numbers only from the generator `rng`."""

    learns: ClassVar[bool]  # whether the agent is trained; False for every actor, because an actor is not

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None: ...

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment that this agent cannot act in.

        Raises:
            InputError: the agent does not support the action space, or needs something that the environment lacks.
        """
        ...

    def __call__(self) -> Any:
        """Return the next action."""
        ...


class Learner(Protocol):
    """An agent for all episodes, which learns. It runs in the collecting process and gets all workers' observations."""

    learns: ClassVar[bool]  # True for every learner
    needs_encoder: ClassVar[bool]

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None: ...

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment that this agent cannot act in, as `Actor.check` does."""
        ...

    def __call__(self, observations: AgentObservations) -> list[Any]:
        """Return one action per row of the observations."""
        ...


def check_space(env: gymnasium.Env[Any, Any]) -> None:
    """Refuse action spaces other than Box and Discrete.

    Raises:
        InputError: the action space is neither Box nor Discrete.
    """
    if not isinstance(env.action_space, Box | Discrete):
        raise InputError(f"{env_name(env)} has actions {env.action_space}; collection takes Box and Discrete")


def action_range(env: gymnasium.Env[Any, Any]) -> tuple[Float32[ndarray, " *shape"], Float32[ndarray, " *shape"]]:
    """Return the middle of the action range and half its width; agents shift and scale their noise by these.

    Half the width is finite for all finite bounds, but the full width could overflow float32.

    Raises:
        InputError: the action space is not a bounded Box of floats.
    """
    space: Space[Any] = env.action_space
    if isinstance(space, Box) and not np.issubdtype(space.dtype, np.floating):
        raise InputError(f"{env_name(env)} has actions {space}; this agent acts in floats, use random")
    if not isinstance(space, Box) or not space.is_bounded():
        others = "random" if isinstance(space, Box) else "random, count, rnd or novelty"
        raise InputError(f"{env_name(env)} has actions {space}; this agent needs a bounded Box, use {others}")
    largest = np.finfo(np.float32).max
    low, high = (np.clip(bound.astype(np.float64), -largest, largest) for bound in (space.low, space.high))
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)


def env_name(env: gymnasium.Env[Any, Any]) -> str:
    """Return the id of an environment; return its class name if it is not registered."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__
