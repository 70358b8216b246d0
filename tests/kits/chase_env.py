"""A fast environment for tests: a point on a line goes to a goal. A linear map draws both into the picture.

A fine pattern shows them strongly and vanishes when pixels are pooled; a coarse one is faint, below the pixels' noise.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box

SIZE, FINE, COARSE, NOISE = 32, 40.0, 1.5, 8.0
NEAR = 0.1
y, x = np.mgrid[:SIZE, :SIZE]
CHECKS = 1.0 - 2.0 * ((x + y) % 2)
# Half of the picture shows the point, and half the goal.
PARTS = np.stack([x < SIZE // 2, x >= SIZE // 2]).astype(float)


class Chase(gymnasium.Env[Any, Any]):
    metadata: ClassVar = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = Box(-1, 1, (2,), np.float32)
    action_space = Box(-0.4, 0.2, (1,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    factors = ("dark",)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.places = self.np_random.uniform(-1, 1, 2)
        self.gain = 1 - 0.1 * (options or {}).get("strengths", {}).get("dark", 0)
        return self._seen()

    def step(self, action: Any) -> Any:
        self.places[0] = np.clip(self.places[0] + action[0], -1, 1)
        seen, info = self._seen()
        return seen, -abs(self._left()), bool(info["is_success"]), False, info

    def expert(self) -> Any:
        return np.array([np.clip(self._left(), -0.4, 0.2)], np.float32)

    def render(self) -> Any:
        shown = np.tensordot(self.places, PARTS, 1)
        noise = self.np_random.normal(0, NOISE, (SIZE, SIZE))
        grey = self.gain * (128 + shown * (FINE * CHECKS + COARSE) + noise)
        return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)

    def _left(self) -> float:
        return float(self.places[1] - self.places[0])

    def _seen(self) -> Any:
        info = {
            "agent_state": self.places[:1],
            "environment_state": self.places[1:],
            "is_success": abs(self._left()) < NEAR,
        }
        return self.places.astype(np.float32), info


def read_places(frames: np.ndarray) -> np.ndarray:
    """Read point and goal off pictures, by a linear map."""
    grey = frames[..., 0] - 128.0
    return (np.einsum("nyx,kyx->nk", grey, PARTS * CHECKS) / (FINE * SIZE * SIZE / 2)).astype(np.float32)


if "kit/Chase-v0" not in gymnasium.registry:  # pytest also imports this file to look for doctests
    gymnasium.register("kit/Chase-v0", entry_point="chase_env:Chase", max_episode_steps=20)
