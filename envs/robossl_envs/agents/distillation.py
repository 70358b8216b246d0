"""Distillation: a network learns to predict a fixed random one, and its error says how new a thing is (RND's bonus).

Inputs and normalisation follow URLB's agent (arXiv:2110.15191): batch-normalised, cut at 5. The bonus of a view is the
squared error before learning from it; `Pursuit` heads for the cells where it was largest lately.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor, nn

from robossl_envs.agents.agent import Seen
from robossl_envs.agents.cells import NUM_CELLS, Cells
from robossl_envs.agents.walk import Walk

DIM = 128  # of what is predicted
LEARNING_RATE = 1e-3  # ten times URLB's: it learns from 1024 frames every other step, this from 64 every 32nd
BATCH, LEARN_EVERY, REMEMBERED = 64, 32, 4096  # frames
PACE = 0.3  # of a cell's novelty towards its newest frame's


class Distillation:
    """A random network and one that learns to predict it, on views as they come.

    Args:
        normalize: batch-norm for the views.
        network: makes a network from a view to `DIM` numbers.
        seed: of both networks and of what is remembered.
    """

    def __init__(self, normalize: Callable[[], nn.Module], network: Callable[[], nn.Sequential], *, seed: int) -> None:
        self._draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._normalize = normalize()
            self._target = network()
            more = (nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
            self._predictor = nn.Sequential(network(), *more)
        self._optimizer = torch.optim.Adam(self._predictor.parameters(), lr=LEARNING_RATE)
        self._remembered: deque[Float[Tensor, ...]] = deque(maxlen=REMEMBERED)
        self._num_seen = 0

    def __call__(self, views: Float[Tensor, "n ..."]) -> Float[ndarray, " n"]:
        """The bonus of each view; every `LEARN_EVERY` views the predictor takes a step."""
        with torch.no_grad():
            self._normalize.eval()
            errors: Float[ndarray, " n"] = self._errors(views).double().numpy()
        before = self._num_seen // LEARN_EVERY
        self._remembered.extend(views)
        self._num_seen += len(views)
        if self._num_seen // LEARN_EVERY > before:
            self._learn()
        return errors

    def _errors(self, views: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        normal = self._normalize(views).clamp(-5, 5)
        with torch.no_grad():
            target = self._target(normal)
        errors: Float[Tensor, " n"] = (self._predictor(normal) - target).square().mean(dim=1)
        return errors

    def _learn(self) -> None:
        places = torch.randint(len(self._remembered), (BATCH,), generator=self._draws)
        self._normalize.train()
        loss = self._errors(torch.stack([self._remembered[place] for place in places.tolist()])).mean()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()


class Pursuit:
    """Heads for errors: the novelty of a cell is the error on what was last seen in it, as a share of the largest."""

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._cells, self._walk = Cells(rng), Walk(env, rng, num_slots)
        self._novelty = np.zeros(NUM_CELLS)

    def __call__(self, seen: Seen, errors: Float[ndarray, " n"]) -> list[Any]:
        """One action a row."""
        cells = self._cells(seen)
        for cell, error in zip(cells, errors, strict=True):
            first = self._novelty[cell] == 0
            self._novelty[cell] += (1 if first else PACE) * (error - self._novelty[cell])
        return self._walk(seen, cells, self._novelty / max(self._novelty.max(), 1e-12))
