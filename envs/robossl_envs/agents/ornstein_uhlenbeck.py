"""Ornstein-Uhlenbeck noise: a random walk that is drawn back to the middle (DDPG, arXiv:1509.02971, section 7)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import bounds

THETA, SIGMA = 0.15, 0.2  # a step; DDPG's, in half ranges of the action


class OrnsteinUhlenbeck:
    """Begins at rest, as DDPG does."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._middle, self._half = bounds(env)
        self._rng = rng
        self._value = np.zeros(self._middle.shape)

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Bounded Box actions only."""
        bounds(env)

    def __call__(self) -> Float32[ndarray, " *shape"]:
        """The next value of the walk."""
        self._value += -THETA * self._value + SIGMA * self._rng.normal(size=self._value.shape)
        action: Float32[ndarray, " *shape"] = self._middle + self._half * np.clip(self._value, -1, 1)
        return action.astype(np.float32)
