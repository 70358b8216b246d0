"""RND: goes where a network errs that learns to predict a fixed random network on frames (arXiv:1810.12894)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import gymnasium
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor, nn
from torch.nn import functional

from robossl_envs.agents.agent import Seen
from robossl_envs.agents.distillation import DIM, Distillation, Pursuit
from robossl_envs.agents.walk import check_candidates

SIDE, WIDTHS = 84, (1, 8, 16, 32, 32)  # narrow: a few ms a frame on one core


class RND:
    """The bonus is the distillation error on frames, 84 px grey as in URLB (arXiv:2110.15191)."""

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._pursue = Pursuit(env, rng, num_slots)
        self._bonus = frame_distillation(seed=int(rng.integers(2**31)))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Discrete actions or a bounded Box."""
        check_candidates(env)

    def __call__(self, seen: Seen) -> list[Any]:
        """One action a row."""
        return self._pursue(seen, self._bonus(grey(seen.frames)))


def frame_distillation(*, seed: int) -> Distillation:
    """Over grey frames, with small convolutional networks."""
    return Distillation(lambda: nn.BatchNorm2d(1, affine=False), _network, seed=seed)


def grey(frames: UInt8[ndarray, "n h w 3"]) -> Float[Tensor, "n 1 84 84"]:
    """Small grey views, 0 to 1."""
    return functional.interpolate(torch.from_numpy(frames).float().mean(dim=3)[:, None] / 255, SIDE, mode="area")


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    side = SIDE
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * side * side, DIM))
