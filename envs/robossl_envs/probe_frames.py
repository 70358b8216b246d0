"""Frames for the invariance probes: pictures of our environments with any nuisance factor at any strength.

Each seed gives one scene: the state of the environment after the expert has played eight steps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.probes.frames import LATENCY_FRAMES, Label, ViewUnavailableError
from robossl_envs.camera import Camera, Grid
from robossl_envs.factors import FACTORS
from robossl_envs.tabletop import Tabletop

IDS = tuple(f"robossl/{task}{kind}-v0" for kind in ("", "Home") for task in ("Push", "Reach", "Sort", "Choose"))
# Environment -> direction of the T's stem in the coordinates of the T, in radians.
# Environments with squares have no entry, because a square looks the same after a quarter turn.
STEMS = {"robossl/Push-v0": -math.pi / 2, "robossl/PushHome-v0": -math.pi / 2}


class EnvFrames:
    """Scenes of one environment after eight steps of the expert. "Clean" means without nuisances.

    The label `point` is the position of the first object that can be pushed, or of the target if there is no such
    object. The label `angle` is the direction of the T's stem; only the environment with a T has it. The label `class`
    says whether the first object belongs in the left or the right bin; only the environment with two objects has it.
    """

    cluster_key = "scene"
    notes: tuple[str, ...] = ()

    def __init__(self, env_id: str, *, num_scenes: int = 2500, image_size: int = 96, seed: int = 0) -> None:
        """Play every scene once to compute its labels; pictures are rendered later, on request.

        Raises:
            InputError: `env_id` is not in `IDS`, `num_scenes` is less than 2, or `image_size` is less than 16.
        """
        if env_id not in IDS:
            raise InputError(suggest_name("environment", env_id, IDS))
        if num_scenes < 2 or image_size < 16:
            raise InputError(f"at least 2 scenes of 16 pixels are needed, got {num_scenes} of {image_size}")
        self.name = env_id
        self.hw = (image_size, image_size)
        self._seeds = seed * 2**20 + np.arange(num_scenes)
        self.clusters = np.arange(num_scenes)
        made = gymnasium.make(env_id, obs_type="state", render_mode="rgb_array", image_size=image_size).unwrapped
        assert isinstance(made, Tabletop)
        self._env = made
        states = np.stack([self._play(int(each), LATENCY_FRAMES, {})["environment_state"] for each in self._seeds])
        dims = self._env.state_names["environment_state"]
        self._bodies = self._env.task.bodies
        grid = Grid(Camera(), height=image_size, width=image_size)
        state = dict(zip(dims, states.T.astype(np.float64), strict=True))
        self.labels: Mapping[str, Label] = _labels(state, grid, self._bodies, stem=STEMS.get(env_id))
        names = self._env.factors
        drawn = [self.clean(np.arange(2)), *(self._pictures(np.arange(1), 0, {name: 5}) for name in names)]
        # Hash the drawn pictures too, so that the digest changes if the code that renders a factor changes.
        pictures = b"".join(each.tobytes() for each in drawn)
        factors = [(name, FACTORS[name].clean, FACTORS[name].sides) for name in names]
        parts = (env_id, self._seeds.tobytes(), str(self.hw), states.tobytes(), pictures, repr(factors))
        self.digest = hashlib.sha256(b"".join(p.encode() if isinstance(p, str) else p for p in parts)).hexdigest()

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        """Return pictures of the scenes with indices `at`, without nuisances."""
        return self._pictures(at, LATENCY_FRAMES, {})

    def earlier(self, at: Int[ndarray, " b"], frames: int) -> UInt8[ndarray, "b h w 3"]:
        """Return pictures of the scenes with indices `at`, taken `frames` steps earlier.

        Raises:
            ViewUnavailableError: `frames` is more than the number of steps that each scene was played.
        """
        if frames > LATENCY_FRAMES:
            raise ViewUnavailableError(
                f"scenes are {LATENCY_FRAMES} steps old; {frames} steps earlier there is no scene"
            )
        return self._pictures(at, LATENCY_FRAMES - frames, {})

    def scene(self, at: Int[ndarray, " b"], factor: str, strength: int) -> UInt8[ndarray, "b h w 3"]:
        """Return pictures of the scenes with indices `at`, with a factor at a strength.

        If the factor has two sides, such as darker and brighter, the seed of each scene decides which side it gets.

        Raises:
            ViewUnavailableError: the environment has no such factor.
        """
        self._check(factor)
        return self._pictures(at, LATENCY_FRAMES, {factor: strength})

    def scene_warp(self, at: Int[ndarray, " b"], factor: str, strength: int) -> Float[ndarray, "b 3 3"]:
        """Return homographies that say where a factor moves each point of the table in the picture (see `scene`).

        The coordinates are those of the labels: from -1 to 1 over the picture, with y pointing down.

        Raises:
            ViewUnavailableError: the environment has no such factor.
        """
        self._check(factor)
        # y points up in the camera's coordinates, and down in those of the labels.
        up = np.diag([1.0, -1.0, 1.0])
        found = np.empty((len(at), 3, 3))
        for slot, seed in zip(found, self._seeds[at], strict=True):
            self._play(int(seed), 0, {factor: strength})
            slot[:] = up @ np.linalg.inv(self._env.camera.to_table) @ Camera().to_table @ up
        return found

    def _check(self, factor: str) -> None:
        if factor not in FACTORS:
            raise ViewUnavailableError(f"{self.name} has no factor {factor}")
        if factor not in self._env.factors:
            raise ViewUnavailableError(f"the factor {factor} has no effect in {self.name}")

    def _pictures(self, at: Int[ndarray, " b"], steps: int, strengths: dict[str, int]) -> UInt8[ndarray, "b h w 3"]:
        out = np.empty((len(at), *self.hw, 3), np.uint8)
        for slot, seed in zip(out, self._seeds[at], strict=True):
            self._play(int(seed), steps, strengths)
            slot[:] = np.asarray(self._env.render())
        return out

    def _play(self, seed: int, steps: int, strengths: dict[str, int]) -> dict[str, Any]:
        _, info = self._env.reset(seed=seed, options={"strengths": strengths})
        for _ in range(steps):
            *_, info = self._env.step(self._env.expert())
        return info


def _labels(
    state: dict[str, Float[ndarray, " n"]], grid: Grid, bodies: tuple[str, ...], *, stem: float | None
) -> dict[str, Label]:
    """Return the labels of all scenes. The keys of `state` are the names of its dimensions, such as "block.x"."""
    x, y = (f"{bodies[0]}.x", f"{bodies[0]}.y") if bodies else ("target.0", "target.1")
    seen = grid.fractions(np.stack([state[x], state[y]], axis=1)).astype(np.float64)
    labels = {"point": Label("point", 2 * seen - 1)}
    if stem is not None:
        angle = stem + np.arctan2(state[f"{bodies[0]}.sin"], state[f"{bodies[0]}.cos"])
        labels["angle"] = Label("angle", np.asarray(angle % (2 * math.pi))[:, None])
    if len(bodies) > 1:
        right = (state["target.0"] > 0).astype(np.float64)[:, None]
        labels["class"] = Label("class", right, (f"{bodies[0]} left", f"{bodies[0]} right"), mirrored=(1, 0))
    return labels
