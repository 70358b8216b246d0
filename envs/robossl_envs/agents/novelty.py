"""Novelty: as RND (arXiv:1810.12894), but on the embeddings of an encoder: goes where that encoder finds things new.

With the encoder that is being trained this closes the loop of perception and action: `robossl explore-loop`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import torch
from numpy.random import Generator
from torch import nn

from robossl_envs.agents.agent import Seen
from robossl_envs.agents.distillation import DIM, Distillation, Pursuit
from robossl_envs.agents.walk import check_candidates

WIDTH = 256


class Novelty:
    """The bonus is the distillation error on pooled embeddings, standardised as they come."""

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = True

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._pursue = Pursuit(env, rng, num_slots)
        self._seed = int(rng.integers(2**31))
        self._bonus: Distillation | None = None

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Discrete actions or a bounded Box."""
        check_candidates(env)

    def __call__(self, seen: Seen) -> list[Any]:
        """One action a row."""
        assert seen.embeddings is not None, "who collects hands them to an agent that needs an encoder"
        if self._bonus is None:
            self._bonus = embedding_distillation(seen.embeddings.shape[1], seed=self._seed)
        return self._pursue(seen, self._bonus(torch.from_numpy(seen.embeddings)))


def embedding_distillation(dim: int, *, seed: int) -> Distillation:
    """Over vectors, with small fully connected networks."""

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(dim, WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM))

    return Distillation(lambda: nn.BatchNorm1d(dim, affine=False), network, seed=seed)
