"""Plays episodes of one environment and writes each as a part; runs in the worker processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from numpy.random import Generator

from robossl.durable import raise_disk_full
from robossl_envs.collection.environment import ENVIRONMENT, STATE, Described, open_env, picture, vectors
from robossl_envs.collection.part import PartWriter
from robossl_envs.collection.settings import Settings, draws

STRENGTHS = 5  # the strongest a nuisance can be; 0 is none


class Recorder:
    """One environment, played an episode at a time; `frame` and `state` are what there is to act on."""

    frame: UInt8[ndarray, "h w 3"]
    state: Float32[ndarray, " d"]
    rng: Generator  # the agent's, of this episode

    def __init__(self, settings: Settings, described: Described, parts: Path) -> None:
        self.env = open_env(settings)
        self._settings, self._described, self._parts = settings, described, parts

    def begin(self, number: int) -> None:
        """Start an episode; everything that is drawn in it depends on the settings and its number alone."""
        seed, self.rng, strengths = draws(self._settings, number)
        self.env.action_space.seed(seed)
        drawn = {name: int(strengths.integers(STRENGTHS + 1)) for name in self._described.nuisances}
        observation, info = self.env.reset(seed=seed, options={"strengths": drawn} if drawn else None)
        self._number = number
        self._writer = PartWriter(
            frames_per_s=self._described.frames_per_s, height=self._described.height, width=self._described.width
        )
        self._look(observation, info)

    def step(self, action: Any) -> int:
        """Act; the number of frames when this ended the episode and it is on disk, else 0.

        Raises:
            ResourceError: the disk is full.
            ValueError: a state, the action or the reward is not finite.
        """
        row = {**self._vectors, "action": np.array(action), "agent": self._settings.agent}
        observation, reward, terminated, truncated, info = self.env.step(action)
        row |= {"next.reward": float(reward), "next.done": terminated or truncated}
        _check_finite({name: row[name] for name in ("action", "next.reward")})
        row["next.success"] = bool(info.get("is_success", False))
        self._writer.add(self.frame, row)
        if terminated or truncated:
            with raise_disk_full(self._parts.parent):
                return self._writer.finish(self._parts, self._number, self._described.columns)
        self._look(observation, info)
        return 0

    def _look(self, observation: Any, info: dict[str, Any]) -> None:
        self._vectors = vectors(observation, info)
        _check_finite(self._vectors)
        self.frame = picture(self.env, self._described.height, self._described.width)
        known = [self._vectors[name] for name in (STATE, ENVIRONMENT) if name in self._vectors]
        self.state = np.concatenate(known) if known else np.zeros(0, np.float32)


def _check_finite(columns: Mapping[str, Any]) -> None:
    """Statistics, and so the file that holds them, have no place for other numbers."""
    for name, values in columns.items():
        flat = np.ravel(values)
        wrong = np.flatnonzero(~np.isfinite(flat))
        if len(wrong):
            raise ValueError(f"{name} must be finite, got {flat[wrong[0]]} in dimension {wrong[0]} of {len(flat)}")
