"""RND: goes where a network errs that learns to predict a fixed random network (arXiv:1810.12894).

Inputs and normalisation follow URLB's agent (arXiv:2110.15191): 84 px grey, batch-normalised, cut at 5. The bonus of a
frame is the squared error before learning from it; `Walk` heads for the cells where it was largest lately.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from robossl_envs.agents.agent import Seen
from robossl_envs.agents.cells import NUM_CELLS, Cells
from robossl_envs.agents.walk import Walk, check_candidates

SIDE, WIDTHS, DIM = 84, (1, 8, 16, 32, 32), 128  # narrow: a few ms a frame on one core
LEARNING_RATE = 1e-3  # ten times URLB's: it learns from 1024 frames every other step, this from 64 every 32nd
BATCH, LEARN_EVERY, REMEMBERED = 64, 32, 4096  # frames
PACE = 0.3  # of a cell's novelty towards its newest frame's


class RND:
    """The novelty of a cell is the error on the frames last seen in it, as a share of the largest."""

    learns: ClassVar[bool] = True

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._cells, self._walk = Cells(rng), Walk(env, rng, num_slots)
        self._bonus = Distillation(seed=int(rng.integers(2**31)))
        self._novelty = np.zeros(NUM_CELLS)

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Discrete actions or a bounded Box."""
        check_candidates(env)

    def __call__(self, seen: Seen) -> list[Any]:
        """One action a row."""
        cells = self._cells(seen)
        for cell, error in zip(cells, self._bonus(seen.frames), strict=True):
            first = self._novelty[cell] == 0
            self._novelty[cell] += (1 if first else PACE) * (error - self._novelty[cell])
        return self._walk(seen, cells, self._novelty / max(self._novelty.max(), 1e-12))


class Distillation:
    """A random network and one that learns to predict it, on the frames as they come."""

    def __init__(self, *, seed: int) -> None:
        self._draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._normalize = nn.BatchNorm2d(1, affine=False)
            self._target = _network()
            self._predictor = _network(nn.ReLU(), nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))
        self._optimizer = torch.optim.Adam(self._predictor.parameters(), lr=LEARNING_RATE)
        self._remembered: deque[Float[Tensor, "1 84 84"]] = deque(maxlen=REMEMBERED)
        self._num_seen = 0

    def __call__(self, frames: UInt8[ndarray, "n h w 3"]) -> Float[ndarray, " n"]:
        """The bonus of each frame; every `LEARN_EVERY` frames the predictor takes a step."""
        grey = functional.interpolate(torch.from_numpy(frames).float().mean(dim=3)[:, None] / 255, SIDE, mode="area")
        with torch.no_grad():
            self._normalize.eval()
            errors: Float[ndarray, " n"] = self._errors(grey).double().numpy()
        before = self._num_seen // LEARN_EVERY
        self._remembered.extend(grey)
        self._num_seen += len(grey)
        if self._num_seen // LEARN_EVERY > before:
            self._learn()
        return errors

    def _errors(self, grey: Float[Tensor, "n 1 84 84"]) -> Float[Tensor, " n"]:
        view = self._normalize(grey).clamp(-5, 5)
        with torch.no_grad():
            target = self._target(view)
        errors: Float[Tensor, " n"] = (self._predictor(view) - target).square().mean(dim=1)
        return errors

    def _learn(self) -> None:
        places = torch.randint(len(self._remembered), (BATCH,), generator=self._draws)
        self._normalize.train()
        loss = self._errors(torch.stack([self._remembered[place] for place in places.tolist()])).mean()
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()


def _network(*more: nn.Module) -> nn.Sequential:
    layers: list[nn.Module] = []
    side = SIDE
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * side * side, DIM), *more)
