"""A walk that heads for novelty: planning over the cells seen so far (R-max's optimism, Brafman & Tennenholtz 2002).

Of the ways to act on a bonus this is the simplest that covers more than noise does here: a table of where each action
led from each cell, and value iteration over it. It has no network to train, so it follows a bonus that changes from
step to step, where the policies of the bonus's own papers need 10^5 frames or more.
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

from robossl_envs.agents.agent import Seen, bounds
from robossl_envs.agents.cells import NUM_CELLS

DISCOUNT = 0.9  # a decision
HOLD = 8  # steps an action is held at most; it ends when the cell changes
PLAN_EVERY = 16  # decisions
SWEEPS = 10
DIRECTIONS = 8


class Walk:
    """Chooses among a few held actions the one that leads on to the most novelty; untried ones first."""

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._rng = rng
        self._actions = candidates(env, rng)
        shape = (NUM_CELLS, len(self._actions))
        self._tried, self._after = np.zeros(shape, bool), np.zeros(shape, np.int64)
        self._value = np.zeros(NUM_CELLS)
        self._choice, self._origin, self._held = (np.zeros(num_slots, np.int64) for _ in range(3))
        self._num_decisions = 0

    def __call__(self, seen: Seen, cells: Int64[ndarray, " n"], novelty: Float[ndarray, " cells"]) -> list[Any]:
        """Actions for all rows; `novelty` of every cell lies between 0 and 1."""
        for slot, cell, started in zip(seen.slots, cells, seen.started, strict=True):
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
        return [self._actions[choice] for choice in self._choice[seen.slots]]

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


def candidates(env: gymnasium.Env[Any, Any], rng: Generator) -> list[Any]:
    """All discrete actions, or full actions in directions spread over a Box."""
    if isinstance(env.action_space, Discrete):
        return [env.action_space.start + np.int64(k) for k in range(int(env.action_space.n))]
    middle, half = bounds(env)
    if middle.size == 1:
        directions = np.array([[-1.0], [1.0]])
    elif middle.size == 2:
        angles = np.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        directions = rng.normal(size=(2 * DIRECTIONS, middle.size))
        directions /= np.abs(directions).max(axis=1, keepdims=True)
    return list((middle + half * directions.reshape(-1, *middle.shape)).astype(np.float32))


def check_candidates(env: gymnasium.Env[Any, Any]) -> None:
    """Refuse what `candidates` cannot take: anything but Discrete and a bounded Box.

    Raises:
        InputError: another action space.
    """
    if not isinstance(env.action_space, Discrete):
        bounds(env)
