"""Agents that take the actions of the environment's scripted expert, with or without added pink noise."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

from robossl.errors import InputError
from robossl_envs.agents.agent import action_range, check_space, env_name
from robossl_envs.agents.pink import coloured_noise


class ExpertAgent:
    """Takes the action that the environment's method `expert()` returns."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._expert = env.get_wrapper_attr("expert")

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment without a scripted expert."""
        check_space(env)
        if not env.has_wrapper_attr("expert"):
            raise InputError(f"{env_name(env)} has no scripted expert (a method `expert`); use another --agent")

    def __call__(self) -> Any:
        """Return the expert's action."""
        return self._expert()


class NoisyExpertAgent:
    """Adds pink noise to the expert's actions.

    The standard deviation of the noise is random in each episode, from 0 to half the range of the actions.
    """

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        middle, half = action_range(env)
        self._low, self._high = middle - half, middle + half
        largest = np.finfo(np.float32).max
        self._expert = env.get_wrapper_attr("expert")
        noise = rng.uniform() * coloured_noise(rng, num_steps, middle.size).reshape(num_steps, *middle.shape)
        self._noise = iter(np.clip(half * noise, -largest, largest).astype(np.float32))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment that has no scripted expert, or whose action space is not a bounded Box of floats."""
        ExpertAgent.check(env)
        action_range(env)

    def __call__(self) -> Float32[ndarray, " *shape"]:
        """Return the expert's action with noise."""
        # Use float64, because with very wide bounds the sum may overflow float32.
        disturbed = np.asarray(self._expert(), np.float64) + next(self._noise)
        action: Float32[ndarray, " *shape"] = np.clip(disturbed, self._low, self._high).astype(np.float32)
        return action
