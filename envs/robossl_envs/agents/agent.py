"""What an agent is: an actor plays one episode by itself; a learner plays all of them and learns from each step."""

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
class Seen:
    """What the environments that wait for an action show now."""

    slots: Int64[ndarray, " n"]  # which environment each row is of
    frames: UInt8[ndarray, "n h w 3"]
    states: Float32[ndarray, "n d"]  # d is 0 where the environment tells no state
    started: Bool[ndarray, " n"]  # the first of an episode
    embeddings: Float32[ndarray, "n e"] | None = None  # of the frames, for an agent that needs an encoder


class Actor(Protocol):
    """Made anew for every episode, in a worker process; draws from its own generator alone."""

    learns: ClassVar[bool]  # False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None: ...

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment this agent cannot act in.

        Raises:
            InputError: the action space or something else does not fit.
        """
        ...

    def __call__(self) -> Any:
        """The action to take now."""
        ...


class Learner(Protocol):
    """Made once, in the collecting process; sees the steps of every worker's environment."""

    learns: ClassVar[bool]  # True
    needs_encoder: ClassVar[bool]

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None: ...

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """As for an actor."""
        ...

    def __call__(self, seen: Seen) -> list[Any]:
        """One action a row."""
        ...


def check_space(env: gymnasium.Env[Any, Any]) -> None:
    """Refuse actions that are neither a Box nor Discrete.

    Raises:
        InputError: another action space.
    """
    if not isinstance(env.action_space, Box | Discrete):
        raise InputError(f"{name_of(env)} has actions {env.action_space}; collection takes Box and Discrete")


def bounds(env: gymnasium.Env[Any, Any]) -> tuple[Float32[ndarray, " *shape"], Float32[ndarray, " *shape"]]:
    """Middle and half range of a bounded Box of floats, which noise is scaled to.

    Both are finite for any finite bounds: the range itself may be too large for float32, half of it is not.

    Raises:
        InputError: another action space.
    """
    space: Space[Any] = env.action_space
    if isinstance(space, Box) and not np.issubdtype(space.dtype, np.floating):
        raise InputError(f"{name_of(env)} has actions {space}; this agent acts in floats, use random")
    if not isinstance(space, Box) or not space.is_bounded():
        others = "random" if isinstance(space, Box) else "random, count, rnd or novelty"
        raise InputError(f"{name_of(env)} has actions {space}; this agent needs a bounded Box, use {others}")
    largest = np.finfo(np.float32).max
    low, high = (np.clip(bound.astype(np.float64), -largest, largest) for bound in (space.low, space.high))
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)


def name_of(env: gymnasium.Env[Any, Any]) -> str:
    """The id an environment was made by."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__
