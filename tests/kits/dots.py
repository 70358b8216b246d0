"""Tiny environments of numpy, registered by being imported: a dot on a plane, and dots that misbehave.

Test modules and spawned workers alike import this as `dots`; it sees neither torch nor robossl.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete

STEP = 0.04
MOVES = np.array([(1, 0), (-1, 0), (0, 1), (0, -1)], np.float32)


class Dot(gymnasium.Env[Any, Any]):
    """A white dot moves over a shaded plane; the state is where it is, in -1 to 1, and the goal is the upper right."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, side: int = 48, discrete: bool = False) -> None:
        self.render_mode, self._side = render_mode, side
        self.action_space = Discrete(4) if discrete else Box(-1, 1, (2,), np.float32)
        self.observation_space = Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.np_random.uniform(-0.5, 0.5, 2).astype(np.float32)
        self._light = 0.2 * (options or {}).get("strengths", {}).get("light", 0)
        return self._place.copy(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        move = MOVES[action] if isinstance(self.action_space, Discrete) else np.asarray(action)
        self._place = np.clip(self._place + STEP * move, -1, 1).astype(np.float32)
        info = self._info()
        return self._place.copy(), float(-np.abs(self._place - 0.9).sum()), info["is_success"], False, info

    def _info(self) -> dict[str, Any]:
        return {"is_success": bool((self._place > 0.8).all())}

    def render(self) -> Any:
        shade = np.linspace(0, 120, self._side)
        frame = np.repeat((shade[:, None] + shade[None])[:, :, None], 3, axis=2).astype(np.uint8)
        frame[:, :, 2] = 60
        x, y = ((self._place + 1) / 2 * (self._side - 9) + 1).astype(int)
        frame[y : y + 8, x : x + 8] = 255
        return frame


class Known(Dot):
    """The same with what environments of robossl add: named vectors, a nuisance and an expert."""

    state_names: ClassVar[dict[str, tuple[str, ...]]] = {
        "agent_state": ("x", "y"),
        "environment_state": ("goal.x", "goal.y"),
        "nuisance": ("light",),
    }

    def _info(self) -> dict[str, Any]:
        return {
            **super()._info(),
            "agent_state": self._place,  # the array itself: it changes with the next step
            "environment_state": np.full(2, 0.9, np.float32),
            "nuisance": np.array([self._light], np.float32),
        }

    def expert(self) -> Any:
        return np.clip(10 * (0.9 - self._place), -1, 1).astype(np.float32)


def _fault(path: Path) -> str:
    """What the file says to the one process that gets to take it away; nothing to the others."""
    try:
        fault = path.read_text()
        if "DOTS_FAULT_STAYS" not in os.environ:
            path.unlink()
    except FileNotFoundError:
        return ""
    return fault


class Failing(Dot):
    """Misbehaves at its fifth step as the file `DOTS_FAULT` says, and takes the file away, so that it does so once.

    `crash` kills the process, `hang` sleeps, `raise` raises; with `DOTS_FAULT_STAYS` the file stays.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._num_steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._num_steps += 1
        path = Path(os.environ["DOTS_FAULT"])
        if self._num_steps == 5 and (fault := _fault(path)):
            if fault == "crash":
                os.kill(os.getpid(), 9)
            elif fault == "hang":
                time.sleep(600)
            raise RuntimeError("the motor stalled\nand more")
        return super().step(action)


class Slow(Dot):
    """Takes 20 ms a step, so that there is time to kill it."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.02)
        return super().step(action)


class NoTorch(Dot):
    """Refuses to live in a process that has imported torch or has more than one thread for numpy."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        import multiprocessing
        import sys

        if multiprocessing.parent_process() is not None:
            assert "torch" not in sys.modules, "a worker imported torch"
            assert os.environ["OMP_NUM_THREADS"] == os.environ["LP_NUM_THREADS"] == "1"
        return super().step(action)


class Blind(Dot):
    """Has no pictures."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["human"]}


class Odd(Dot):
    """Has actions that nobody can take."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = Dict({"a": Discrete(2)})


class Pixels(Dot):
    """Shows only pixels."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.observation_space = Box(0, 255, (48, 48, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        _, info = super().reset(seed=seed, options=options)
        return self.render(), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        _, reward, terminated, truncated, info = super().step(action)
        return self.render(), reward, terminated, truncated, info


class Cursed(Dot):
    """Raises in every attempt at some episodes: where the dot begins far to the left."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._start[0] < -0.2:
            raise RuntimeError("cursed")
        return super().step(action)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed, options=options)
        self._start = observation
        return observation, info


class Strange(Dot):
    """Observes or rewards what is no number in some episodes: where the dot begins far to the left, or far below."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._start, info = super().reset(seed=seed, options=options)
        return self._start, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        place, reward, *over, info = super().step(action)
        place[1] = np.nan if self._start[0] < -0.35 else place[1]
        return place, np.inf if self._start[1] < -0.35 else reward, *over, info


class Whole(Known):
    """Takes whole numbers for actions."""

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = Box(-1, 1, (2,), np.int64)


class Stuck(Dot):
    """Never comes back from being reset."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        time.sleep(600)
        return super().reset(seed=seed, options=options)


class NoGL(Dot):
    """Draws with a library that is not there."""

    def render(self) -> Any:
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")


class Segfault(Dot):
    """Draws with a library that crashes."""

    def render(self) -> Any:
        os.kill(os.getpid(), 11)


if "dots/Steps-v0" not in gymnasium.registry:  # pytest imports it a second time, to look for doctests
    for _class in (
        *(Dot, Known, Failing, Slow, NoTorch, Blind, Odd, Pixels, Cursed, Strange, Whole, Stuck, NoGL, Segfault),
    ):
        gymnasium.register(f"dots/{_class.__name__}-v0", entry_point=_class, max_episode_steps=20)
    gymnasium.register("dots/Steps-v0", entry_point=Dot, kwargs={"discrete": True}, max_episode_steps=20)
