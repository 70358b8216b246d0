"""The environment's scripted expert, alone or pushed off its path by pink noise."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

from robossl.errors import InputError
from robossl_envs.agents.agent import bounds, check_space, name_of
from robossl_envs.agents.pink import coloured


class Expert:
    """Does what `env.unwrapped.expert()` says."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._expert = env.get_wrapper_attr("expert")

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Only environments that bring an expert along."""
        check_space(env)
        if not env.has_wrapper_attr("expert"):
            raise InputError(f"{name_of(env)} has no scripted expert (a method `expert`); use another --agent")

    def __call__(self) -> Any:
        """The expert's action."""
        return self._expert()


class NoisyExpert:
    """The expert and pink noise of a level drawn anew each episode, from none to as strong as the expert."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        middle, half = bounds(env)
        self._low, self._high = middle - half, middle + half
        largest = np.finfo(np.float32).max
        self._expert = env.get_wrapper_attr("expert")
        noise = rng.uniform() * coloured(rng, num_steps, middle.size).reshape(num_steps, *middle.shape)
        self._noise = iter(np.clip(half * noise, -largest, largest).astype(np.float32))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """A bounded Box, and an expert."""
        Expert.check(env)
        bounds(env)

    def __call__(self) -> Float32[ndarray, " *shape"]:
        """The expert's action, disturbed."""
        disturbed = np.asarray(self._expert(), np.float64) + next(self._noise)  # beyond float32 if the bounds are
        action: Float32[ndarray, " *shape"] = np.clip(disturbed, self._low, self._high).astype(np.float32)
        return action
