"""Pink: an agent whose actions are pink noise over the whole episode.

Pink noise was proposed as the default exploration for continuous actions (arXiv:2303.12077). Its power falls as
1 / frequency, so it is smoother than white noise and drifts less than red noise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from numpy.random import Generator

from robossl_envs.agents.agent import action_range

BETA = 1.0  # the power falls as 1 / frequency**BETA; section 5 of the paper recommends this value


class PinkNoiseAgent:
    """Takes pink noise as its actions; the standard deviation is half the action range."""

    learns: ClassVar[bool] = False

    def __init__(self, env: gymnasium.Env[Any, Any], rng: Generator, num_steps: int) -> None:
        self._middle, self._half = action_range(env)
        noise = coloured_noise(rng, num_steps, self._middle.size).reshape(num_steps, *self._middle.shape)
        self._actions = iter((self._middle + self._half * np.clip(noise, -1, 1)).astype(np.float32))

    @staticmethod
    def check(env: gymnasium.Env[Any, Any]) -> None:
        """Refuse an environment whose action space is not a bounded Box of floats."""
        action_range(env)

    def __call__(self) -> Float32[ndarray, " *shape"]:
        """Return the next action."""
        action: Float32[ndarray, " *shape"] = next(self._actions)
        return action


def coloured_noise(rng: Generator, num_steps: int, dim: int, beta: float = BETA) -> Float[ndarray, "t dim"]:
    """Return Gaussian noise of unit variance whose power falls as 1 / frequency**beta; columns are independent."""
    length = max(2, num_steps)
    frequency = np.fft.rfftfreq(length)
    # Frequency 0 gets the power of the lowest frequency above 0, so that the mean over an episode varies too.
    frequency[0] = frequency[1]
    scale = frequency ** (-beta / 2)
    real, imaginary = rng.normal(size=(2, dim, len(scale)))
    imaginary[:, 0] = 0
    real[:, 0] *= np.sqrt(2)
    # If the length is even, the Fourier coefficient of the highest frequency is real.
    if length % 2 == 0:
        imaginary[:, -1] = 0
        real[:, -1] *= np.sqrt(2)
    noise = np.fft.irfft((real + 1j * imaginary) * scale, length)
    weights = np.full(len(scale), 2.0)
    weights[0] = 1.0
    weights[-1] = 1.0 if length % 2 == 0 else 2.0
    variance = 2 * np.sum(weights * scale**2) / length**2
    columns: Float[ndarray, "t dim"] = (noise / np.sqrt(variance)).T[:num_steps]
    return columns
