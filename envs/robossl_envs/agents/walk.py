"""Plan a way to novel cells; a cell is a group of similar observations.

For each cell and action, a table holds the cell that came next. Value iteration on this table chooses the next action.
An action that was not tried in a cell yet is assumed to be the best (optimism of R-max, Brafman & Tennenholtz 2002).

Several planners that we tried reached more cells of our environments than random noise. This planner is the simplest of
them. It trains no network, so it adapts at once when the novelty of a cell changes. The learned policies in papers on
novelty need 10^5 frames or more.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from jaxtyping import Float, Int64
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import AgentObservations, action_range
from robossl_envs.agents.cells import NUM_CELLS

DISCOUNT = 0.9  # discount factor of novelty, per decision
HOLD = 8  # an action is repeated for this many steps, or until the cell changes
PLAN_EVERY = 16  # number of decisions from one value iteration to the next
SWEEPS = 10
DIRECTIONS = 8


class CellPlanner:
    """Chooses the action that leads to the most novel cells, and repeats it for some steps.

    Actions that were not tried in the current cell yet come first.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._rng = rng
        self._actions = candidate_actions(env, rng)
        shape = (NUM_CELLS, len(self._actions))
        self._tried, self._after = np.zeros(shape, bool), np.zeros(shape, np.int64)
        self._value = np.zeros(NUM_CELLS)
        self._choice, self._origin, self._held = (np.zeros(num_slots, np.int64) for _ in range(3))
        self._num_decisions = 0

    def __call__(
        self, observations: AgentObservations, cells: Int64[ndarray, " n"], novelty: Float[ndarray, " cells"]
    ) -> list[Any]:
        """Return one action per row of the observations; `novelty` has one value from 0 to 1 for each cell."""
        for slot, cell, started in zip(observations.slots, cells, observations.started, strict=True):
            moved = cell != self._origin[slot]
            if not started and not moved and self._held[slot] < HOLD:
                self._held[slot] += 1
                continue
            if not started:
                self._tried[self._origin[slot], self._choice[slot]] = True
                self._after[self._origin[slot], self._choice[slot]] = cell
            self._num_decisions += 1
            if self._num_decisions % PLAN_EVERY == 0:
                self._plan(novelty)
            self._choice[slot] = self._decide(int(cell), novelty)
            self._origin[slot], self._held[slot] = cell, 1
        return [self._actions[choice] for choice in self._choice[observations.slots]]

    def _plan(self, novelty: Float[ndarray, " cells"]) -> None:
        for _ in range(SWEEPS):
            self._value = self._worth(slice(None), novelty).max(axis=1)

    def _decide(self, cell: int, novelty: Float[ndarray, " cells"]) -> int:
        worth = self._worth(cell, novelty)
        return int(self._rng.choice(np.flatnonzero(worth == worth.max())))

    def _worth(self, cells: int | slice, novelty: Float[ndarray, " cells"]) -> Float[ndarray, "*cells a"]:
        after = self._after[cells]
        known = novelty[after] + DISCOUNT * self._value[after]
        return np.where(self._tried[cells], known, 1 / (1 - DISCOUNT))


def candidate_actions(env: gymnasium.Env[Any, Any], rng: Generator) -> list[Any]:
    """Return the actions that a planner chooses from.

    For a Discrete space these are all actions. For a Box they are actions of full strength in several directions.
    """
    if isinstance(env.action_space, Discrete):
        return [env.action_space.start + np.int64(k) for k in range(int(env.action_space.n))]
    middle, half = action_range(env)
    if middle.size == 1:
        directions = np.array([[-1.0], [1.0]])
    elif middle.size == 2:
        angles = np.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        directions = rng.normal(size=(2 * DIRECTIONS, middle.size))
        directions /= np.abs(directions).max(axis=1, keepdims=True)
    return list((middle + half * directions.reshape(-1, *middle.shape)).astype(np.float32))


def check_candidate_actions(env: gymnasium.Env[Any, Any]) -> None:
    """Refuse action spaces other than Discrete and a bounded Box of floats.

    Raises:
        InputError: the action space is neither Discrete nor a bounded Box of floats.
    """
    if not isinstance(env.action_space, Discrete):
        action_range(env)
