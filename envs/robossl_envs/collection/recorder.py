"""Play episodes in a worker process, and write each of them to disk as a part (a video and a table)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from numpy.random import Generator

from robossl.common.atomic_io import raise_disk_full
from robossl_envs.collection.environment import (
    ENVIRONMENT,
    STATE,
    EnvDescription,
    open_env,
    render_frame,
    state_columns,
)
from robossl_envs.collection.part import PartWriter
from robossl_envs.collection.settings import CollectionSettings, episode_generators

STRENGTHS = 5  # largest strength of a nuisance factor; strength 0 leaves the scene unchanged


class Recorder:
    """Records the episodes of one environment, one after the other.

    `frame` and `state` are the current picture and state vector. Learners choose their actions from these two.
    """

    frame: UInt8[ndarray, "h w 3"]
    state: Float32[ndarray, " d"]
    rng: Generator  # the agent's generator for this episode

    def __init__(self, settings: CollectionSettings, description: EnvDescription, parts: Path) -> None:
        self.env = open_env(settings)
        self._settings, self._description, self._parts = settings, description, parts

    def begin(self, number: int) -> None:
        """Start the episode with this number; its random numbers depend only on this number and the settings."""
        seed, self.rng, strengths = episode_generators(self._settings, number)
        self.env.action_space.seed(seed)
        drawn = {name: int(strengths.integers(STRENGTHS + 1)) for name in self._description.nuisances}
        observation, info = self.env.reset(seed=seed, options={"strengths": drawn} if drawn else None)
        self._number = number
        self._writer = PartWriter(
            frames_per_s=self._description.frames_per_s, height=self._description.height, width=self._description.width
        )
        self._observe(observation, info)

    def step(self, action: Any) -> int:
        """Take one step and return 0. If the step ends the episode, write it to disk and return its number of frames.

        Raises:
            ResourceError: the disk is full.
            ValueError: the new state, the action or the reward is not finite.
        """
        row = {**self._vectors, "action": np.array(action), "agent": self._settings.agent}
        observation, reward, terminated, truncated, info = self.env.step(action)
        row |= {"next.reward": float(reward), "next.done": terminated or truncated}
        _check_finite({name: row[name] for name in ("action", "next.reward")})
        row["next.success"] = bool(info.get("is_success", False))
        self._writer.add(self.frame, row)
        if terminated or truncated:
            with raise_disk_full(self._parts.parent):
                return self._writer.finish(self._parts, self._number, self._description.columns)
        self._observe(observation, info)
        return 0

    def _observe(self, observation: Any, info: dict[str, Any]) -> None:
        self._vectors = state_columns(observation, info)
        _check_finite(self._vectors)
        self.frame = render_frame(self.env, self._description.height, self._description.width)
        known = [self._vectors[name] for name in (STATE, ENVIRONMENT) if name in self._vectors]
        self.state = np.concatenate(known) if known else np.zeros(0, np.float32)


def _check_finite(columns: Mapping[str, Any]) -> None:
    """Raise ValueError for values that are not finite, because the data set's statistics cannot hold them."""
    for name, values in columns.items():
        flat = np.ravel(values)
        wrong = np.flatnonzero(~np.isfinite(flat))
        if len(wrong):
            raise ValueError(f"{name} must be finite, got {flat[wrong[0]]} in dimension {wrong[0]} of {len(flat)}")
