"""Ornstein-Uhlenbeck noise: a random walk that is pulled to the middle of the action range.

Source: DDPG (arXiv:1509.02971), section 7.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import action_range

# DDPG's values. In each step, the distance to the middle shrinks by the share THETA.
# Then noise with standard deviation SIGMA is added, in units of half the action range.
THETA, SIGMA = 0.15, 0.2


class OrnsteinUhlenbeckAgent:
    """Takes Ornstein-Uhlenbeck noise as its actions; starts in the middle of the action range, as in DDPG."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._middle, self._half = action_range(env)
        self._rng = rng
        self._value = np.zeros(self._middle.shape)

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is not a bounded Box of floats."""
        action_range(env)

    def __call__(self) -> Float32[ndarray, " *shape"]:
        """Return the next action."""
        self._value += -THETA * self._value + SIGMA * self._rng.normal(size=self._value.shape)
        action: Float32[ndarray, " *shape"] = self._middle + self._half * np.clip(self._value, -1, 1)
        return action.astype(np.float32)
