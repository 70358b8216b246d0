"""Distillation: a network learns to predict the output of a fixed random network, as in RND (arXiv:1810.12894).

Its prediction error measures how novel an input is. The inputs, called views here, are grey frames or embeddings. They
are batch-normalised and clipped to -5 to 5, as in URLB's agent (arXiv:2110.15191). The bonus (novelty) of a view is the
squared error before the network learns from this view. `ErrorPursuit` moves towards the cells (groups of similar
observations) with the largest recent errors.
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

from robossl_envs.agents.agent import AgentObservations
from robossl_envs.agents.cells import NUM_CELLS, CellHasher
from robossl_envs.agents.walk import CellPlanner

DIM = 128  # dimension of the predicted vector
# This is ten times URLB's rate, because we train less: on 64 frames after every 32nd frame.
# URLB trains on 1024 frames at every 2nd step.
LEARNING_RATE = 1e-3
BATCH, LEARN_EVERY, REMEMBERED = 64, 32, 4096  # numbers of frames: per batch, between training steps, in memory
PACE = 0.3  # weight of the newest frame's error in the moving average of a cell's errors


class Distillation:
    """A fixed random network, and a predictor network that learns to predict its output.

    The predictor trains on random samples of the latest `REMEMBERED` views (inputs: grey frames or embeddings).

    Args:
        normalize: Function that makes the batch-normalisation layer for the views.
        network: Function that makes a network, which maps a view to `DIM` numbers.
        seed: Seed of both networks and of the random samples.
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
        """Return the prediction error of each view; after every `LEARN_EVERY` views, train the predictor once."""
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


class ErrorPursuit:
    """Moves to cells (groups of similar observations) with large prediction errors.

    The novelty of a cell is the moving average of the errors on its frames, divided by the largest average of all
    cells.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._cells, self._walk = CellHasher(rng), CellPlanner(env, rng, num_slots)
        self._novelty = np.zeros(NUM_CELLS)

    def __call__(self, observations: AgentObservations, errors: Float[ndarray, " n"]) -> list[Any]:
        """Return one action per row of the observations."""
        cells = self._cells(observations)
        for cell, error in zip(cells, errors, strict=True):
            first = self._novelty[cell] == 0
            self._novelty[cell] += (1 if first else PACE) * (error - self._novelty[cell])
        return self._walk(observations, cells, self._novelty / max(self._novelty.max(), 1e-12))
