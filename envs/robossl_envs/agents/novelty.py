"""Novelty: an agent that seeks frames that are new to an encoder, by RND (arXiv:1810.12894) on its embeddings.

`robossl explore-loop` uses this agent with the encoder that is being trained.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import torch
from numpy.random import Generator
from torch import nn

from robossl_envs.agents.agent import AgentObservations
from robossl_envs.agents.distillation import DIM, Distillation, ErrorPursuit
from robossl_envs.agents.walk import check_candidate_actions

WIDTH = 256


class NoveltyAgent:
    """Seeks frames whose pooled embeddings a network predicts badly (see `Distillation`)."""

    learns: ClassVar[bool] = True
    needs_encoder: ClassVar[bool] = True

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_slots: int) -> None:
        self._pursue = ErrorPursuit(env, rng, num_slots)
        self._seed = int(rng.integers(2**31))
        self._bonus: Distillation | None = None

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is neither Discrete nor a bounded Box of floats."""
        check_candidate_actions(env)

    def __call__(self, observations: AgentObservations) -> list[Any]:
        """Return one action per row of the observations."""
        assert observations.embeddings is not None, "collection supplies embeddings to agents that need an encoder"
        if self._bonus is None:
            self._bonus = embedding_distillation(observations.embeddings.shape[1], seed=self._seed)
        return self._pursue(observations, self._bonus(torch.from_numpy(observations.embeddings)))


def embedding_distillation(dim: int, *, seed: int) -> Distillation:
    """Make a `Distillation` for embeddings, with small fully connected networks."""

    def network() -> nn.Sequential:
        return nn.Sequential(nn.Linear(dim, WIDTH), nn.ReLU(), nn.Linear(WIDTH, DIM))

    return Distillation(lambda: nn.BatchNorm1d(dim, affine=False), network, seed=seed)
