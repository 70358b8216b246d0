"""Count: an agent that moves to rarely visited cells (#Exploration, arXiv:1611.04717).

A cell is a group of similar observations; see `cells.py`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from numpy.random import Generator

from robossl_envs.agents.agent import AgentObservations
from robossl_envs.agents.cells import NUM_CELLS, CellHasher
from robossl_envs.agents.walk import CellPlanner, check_candidate_actions


class CountAgent:
    """Moves to novel cells; the novelty of a cell is 1 / sqrt(number of visits to this cell)."""

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._cells, self._walk = CellHasher(rng), CellPlanner(env, rng, num_slots)
        self._visits = np.zeros(NUM_CELLS)

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is neither Discrete nor a bounded Box of floats."""
        check_candidate_actions(env)

    def __call__(self, observations: AgentObservations) -> list[Any]:
        """Return one action per row of the observations."""
        cells = self._cells(observations)
        np.add.at(self._visits, cells, 1)
        return self._walk(observations, cells, 1 / np.sqrt(np.maximum(self._visits, 1)))
