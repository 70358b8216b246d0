"""Random: every action is uniform over the action space of any kind."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
from numpy.random import Generator

from robossl_envs.agents.agent import check_space


class RandomAgent:
    """White noise; a velocity-controlled arm stays near its start."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._space = env.action_space
        self._space.seed(int(rng.integers(2**31)))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Require a Box or discrete actions."""
        check_space(env)

    def __call__(self) -> Any:
        """Return a uniform action."""
        return self._space.sample()
