"""Random: an agent that samples every action uniformly from the action space (Box or Discrete)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
from numpy.random import Generator

from robossl_envs.agents.agent import check_space


class RandomAgent:
    """Takes independent random actions, so an arm that is controlled by velocity stays near its start."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._space = env.action_space
        self._space.seed(int(rng.integers(2**31)))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is neither Box nor Discrete."""
        check_space(env)

    def __call__(self) -> Any:
        """Return a uniformly sampled action."""
        return self._space.sample()
