"""The settings of a collection. The same settings and episode number always give the same frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, SeedSequence

from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl_envs.agents import AGENTS

DEFAULT_STEPS = 1000  # maximum length of an episode if neither the environment nor the caller sets it


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """Everything that the frames depend on, except the episode number."""

    env: str
    agent: str
    image_size: int = 96  # shorter side of the frames in pixels
    frames_per_s: int | None = None  # None means the environment's own rate
    seed: int = 0
    max_steps: int | None = None
    # Names of nuisance factors, or ("all",) for all. Each factor gets a random strength of 0 to 5 in each episode.
    nuisances: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()  # packages imported first because they register environments
    encoder: str | None = None  # digest of the encoder whose embeddings the agent uses; None for no encoder

    def check(self) -> None:
        """Check the settings that do not depend on the environment.

        Raises:
            InputError: a setting is out of range, or the agent is unknown.
        """
        if self.agent not in AGENTS:
            raise InputError(suggest_name("agent", self.agent, AGENTS))
        if not 16 <= self.image_size <= 4096 or self.image_size % 2:
            raise InputError(f"--image-size must be even, 16 to 4096 pixels, got {self.image_size}")
        if self.frames_per_s is not None and not 1 <= self.frames_per_s <= 1000:
            raise InputError(f"--fps must be 1 to 1000, got {self.frames_per_s}")
        if self.seed < 0:
            raise InputError(f"--seed must not be negative, got {self.seed}")
        if self.max_steps is not None and self.max_steps < 1:
            raise InputError(f"--max-steps must be at least 1, got {self.max_steps}")


def episode_generators(settings: CollectionSettings, number: int) -> tuple[int, Generator, Generator]:
    """Return the environment's seed, the agent's generator and the generator of nuisance strengths for one episode."""
    for_env, for_agent, for_strengths = SeedSequence((settings.seed, number)).spawn(3)
    return int(for_env.generate_state(1)[0]), np.random.default_rng(for_agent), np.random.default_rng(for_strengths)
