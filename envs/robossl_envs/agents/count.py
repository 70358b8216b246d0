"""Count: goes where it has been least, by visits of hashed cells (#Exploration, arXiv:1611.04717)."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.random import Generator

from robossl_envs.agents.agent import Seen
from robossl_envs.agents.cells import NUM_CELLS, Cells
from robossl_envs.agents.walk import Walk, check_candidates


class Count:
    """The novelty of a cell is one over the root of its visits."""

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._cells, self._walk = Cells(rng), Walk(env, rng, num_slots)
        self._visits = np.zeros(NUM_CELLS)

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Discrete actions or a bounded Box."""
        check_candidates(env)

    def __call__(self, seen: Seen) -> list[Any]:
        """One action a row."""
        cells = self._cells(seen)
        np.add.at(self._visits, cells, 1)
        return self._walk(seen, cells, 1 / np.sqrt(np.maximum(self._visits, 1)))
