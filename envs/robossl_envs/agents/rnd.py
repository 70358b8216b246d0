"""RND: an agent that seeks frames that are new to a network (arXiv:1810.12894).

The network learns to predict the output of a fixed random network. Its prediction error is large on new frames.
"""

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

from robossl_envs.agents.agent import AgentObservations
from robossl_envs.agents.distillation import DIM, Distillation, ErrorPursuit
from robossl_envs.agents.walk import check_candidate_actions

# Side of the frames in pixels, and number of channels before and after each convolution.
# The network has few channels, so that a frame takes only a few ms on one core.
SIDE, WIDTHS = 84, (1, 8, 16, 32, 32)


class RNDAgent:
    """Seeks frames with a large prediction error (see `Distillation`).

    The frames are grey, with 84 pixels per side, as in URLB (arXiv:2110.15191).
    """

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._pursue = ErrorPursuit(env, rng, num_slots)
        self._bonus = frame_distillation(seed=int(rng.integers(2**31)))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is neither Discrete nor a bounded Box of floats."""
        check_candidate_actions(env)

    def __call__(self, observations: AgentObservations) -> list[Any]:
        """Return one action per row of the observations."""
        return self._pursue(observations, self._bonus(grey_views(observations.frames)))


def frame_distillation(*, seed: int) -> Distillation:
    """Make a `Distillation` for grey frames, with small convolutional networks."""
    return Distillation(lambda: nn.BatchNorm2d(1, affine=False), _network, seed=seed)


def grey_views(frames: UInt8[ndarray, "n h w 3"]) -> Float[Tensor, "n 1 84 84"]:
    """Convert frames to grey, with values 0 to 1, and resize them to 84 x 84 pixels."""
    return functional.interpolate(torch.from_numpy(frames).float().mean(dim=3)[:, None] / 255, SIDE, mode="area")


def _network() -> nn.Sequential:
    layers: list[nn.Module] = []
    side = SIDE
    for inputs, outputs in pairwise(WIDTHS):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()]
        side = (side + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTHS[-1] * side * side, DIM))
