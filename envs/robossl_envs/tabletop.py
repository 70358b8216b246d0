"""The gymnasium environment: a task on a table seen from above, with all nuisance factors in `reset(options=...)`.

    env = gymnasium.make("robossl/Push-v0", obs_type="pixels", image_size=96)
    observation, info = env.reset(seed=0, options={"strengths": {"light_color": 3, "camera_shift": 2}})

With equal seeds, factors do not change the layout (the places of tool, objects and target).
"""

from __future__ import annotations

import math
import pkgutil
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32
from numpy import ndarray

from robossl_envs.camera import Camera, homography
from robossl_envs.factors import (
    FACTORS,
    STRENGTHS,
    draw_strengths,
    draw_values,
    effective_factors,
    factor_vector,
)
from robossl_envs.robot_start import draw_tool
from robossl_envs.scene import Picture, Pose, Scene, SceneObject, draw_camera
from robossl_envs.shapes import Box, Disc
from robossl_envs.task import EpisodeStart, TabletopTask
from robossl_envs.world import STEP_SECONDS, TOOL_RADIUS, World

SHOULDER = (0.0, 0.43)  # metres: place of the arm's fixed end, above the upper border of the unchanged picture
LINKS = (0.36, 0.40)  # metres: lengths of upper arm and forearm
ARM_COLOUR, TOOL_COLOUR = (0.88, 0.87, 0.84), (0.95, 0.62, 0.15)
ARM_HEIGHT, TOOL_HEIGHT, ARM_WIDTH = 0.05, 0.03, 0.018  # metres
OPTIONS = ("strengths", "factors")


class Tabletop(gymnasium.Env[Any, Float32[ndarray, "2"]]):
    """A planar arm that moves a round tool over a table.

    An action is a velocity of the tool as a fraction of full speed (0.3 m/s), held for 0.1 s. Actions longer than 1 are
    shortened to length 1.

    Args:
        task: the class of the task, as "module:Class".
        obs_type: "state" (vector of tool, bodies, target), "pixels", or "pixels_agent_pos" (dict of picture and tool).
        image_size: pixels per side of the picture, or (height, width).
        reward_type: "dense" (see the task), or "success" (1 on success, else 0).
        render_mode: None or "rgb_array".
        masks: whether `info` holds the masks and keypoints of all objects.
        vary: factors that each episode draws, as {factor: largest strength} (domain randomisation). Factors that the
            options of `reset` name are not drawn.
        home: whether the tool starts at its home in every episode. Only then has the factor `robot_start` an effect.

    Raises:
        ValueError: an unknown obs_type, reward_type or option, a factor in `vary` that cannot be set, or an image under
            16 pixels.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / STEP_SECONDS)}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        obs_type: Literal["state", "pixels", "pixels_agent_pos"] = "state",
        image_size: int | tuple[int, int] = 96,
        reward_type: Literal["dense", "success"] = "dense",
        render_mode: str | None = None,
        masks: bool = False,
        vary: Mapping[str, int] | None = None,
        home: bool = False,
    ) -> None:
        self.task: TabletopTask = pkgutil.resolve_name(task)()
        self._home = home
        self.obs_type, self.reward_type, self.render_mode, self._with_masks = obs_type, reward_type, render_mode, masks
        self.height, self.width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if min(self.height, self.width) < 16:
            raise ValueError(f"image_size must be at least 16 pixels per side, got {image_size}")
        if reward_type not in ("dense", "success"):
            raise ValueError(f"reward_type must be 'dense' or 'success', got {reward_type!r}")
        self._vary = dict(vary or {})
        for name, strength in self._vary.items():
            if name not in self.factors or strength not in range(STRENGTHS + 1):
                raise ValueError(
                    f"vary takes strengths from 0 to {STRENGTHS} of {', '.join(self.factors)}; got {name}: {strength!r}"
                )
        self.action_space = spaces.Box(-1, 1, (2,), np.float32)
        self.observation_space = self._space()
        low, high = zip(*(factor.bounds for factor in FACTORS.values()), strict=True)
        self.factor_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))

    @property
    def factors(self) -> tuple[str, ...]:
        """Names of the factors that can be set, those that have an effect here."""
        return effective_factors(self.task.bodies, home=self._home)

    @property
    def state_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the dimensions of the vectors in `info`.

        Positions are in metres, velocities in metres per second, and angles are given by sine and cosine.
        """
        bodies = [f"{name}.{part}" for name in self.task.bodies for part in ("x", "y", "sin", "cos")]
        target = [f"target.{k}" for k in range(self.task.target_dim)]
        return {
            "agent_state": ("tool.x", "tool.y", "tool.vx", "tool.vy"),
            "environment_state": (*bodies, *target),
            "nuisance": tuple(FACTORS),
        }

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode.

        `options` may set `strengths` and `factors`, as `robossl_envs.factors.draw_values` describes.
        """
        super().reset(seed=seed)
        unknown = set(options or {}) - set(OPTIONS)
        if unknown:
            raise ValueError(f"unknown option {', '.join(sorted(unknown))}; choose from {', '.join(OPTIONS)}")
        # `layout` is for the task and `look` for the factors, so that factors do not change the task's random numbers.
        layout, look = self.np_random.spawn(2)
        self._values = draw_values(self._varied(options or {}, look), look, names=self.factors)
        self._nuisance, self._look = factor_vector(self._values), look
        self.camera: Camera = draw_camera(self._values, look, height=self.height, width=self.width)
        self._homography = homography(self.camera, height=self.height, width=self.width)
        self._start: EpisodeStart = self.task.start(layout, self._values)
        if self._home:
            self._start = replace(self._start, tool=draw_tool(self._start, self._values["robot_start"], layout))
        self._world = World(self._start.bodies, self._start.tool)
        self._scene: Scene | None = None  # None until the first picture is rendered
        delay = int(self._values["latency"])
        self._delayed_objects: deque[list[tuple[SceneObject, Pose]]] = deque(
            [self._scene_objects()] * (delay + 1), maxlen=delay + 1
        )
        self._picture: Picture | None = None
        return self._observation(), self._info(success=self.task.score(self._world, self._start).success)

    def _varied(self, options: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the options of an episode with the strengths that it draws itself."""
        if not self._vary or options.get("strengths") == "random":
            return options
        strengths = options.get("strengths", {})
        drawn = draw_strengths(self._vary, rng)
        kept = {name: drawn[name] for name in drawn if name not in options.get("factors", {})}
        return {**options, "strengths": {**kept, **strengths}}

    def step(self, action: Float32[ndarray, 2]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the tool for 0.1 s with velocity `action`; success ends the episode."""
        vx, vy = float(action[0]), float(action[1])
        if not (math.isfinite(vx) and math.isfinite(vy)):
            raise ValueError(f"an action must be two finite numbers, got {action}")
        longest = max(1.0, math.hypot(vx, vy))
        self._world.step((vx / longest, vy / longest))
        self._delayed_objects.append(self._scene_objects())
        self._picture = None
        score = self.task.score(self._world, self._start)
        reward = score.reward if self.reward_type == "dense" else float(score.success)
        return self._observation(), reward, score.success, False, self._info(success=score.success)

    def render(self) -> Picture | None:
        """Return the camera's current picture, uint8 (h, w, 3); None if `render_mode` is None."""
        return None if self.render_mode is None else self._render_picture()

    def expert(self) -> Float32[ndarray, 2]:
        """Return the action of the task's scripted expert."""
        return np.array(self.task.expert(self._world, self._start), np.float32)

    def _render_picture(self) -> Picture:
        if self._scene is None:
            self._scene = Scene(
                self._start.markings,
                self._values,
                self._look,
                camera=self.camera,
                height=self.height,
                width=self.width,
            )
        if self._picture is None:
            self._picture = self._scene.draw(self._delayed_objects[0], self._look)
        return self._picture

    def _scene_objects(self) -> list[tuple[SceneObject, Pose]]:
        """Return the moving objects with their poses, in the order in which they are drawn."""
        x, y = self._world.tool
        objects = [(item, self._world.pose(name)) for name, item in self._start.objects.items()]
        objects += _arm(x, y)
        objects.append((_TOOL, (x, y, 0.0)))
        return objects

    def _state(self) -> tuple[Float32[ndarray, 4], Float32[ndarray, " k"]]:
        found: list[float] = []
        for name in self.task.bodies:
            x, y, angle = self._world.pose(name)
            found += [x, y, math.sin(angle), math.cos(angle)]
        agent = np.array([*self._world.tool, *self._world.tool_velocity], np.float32)
        return agent, np.array([*found, *self._start.target], np.float32)

    def _observation(self) -> Any:
        if self.obs_type == "pixels":
            return self._render_picture()
        agent, environment = self._state()
        if self.obs_type == "state":
            return np.concatenate([agent, environment])
        return {"pixels": self._render_picture(), "agent_pos": agent}

    def _space(self) -> spaces.Space[Any]:
        agent = spaces.Box(-1, 1, (4,), np.float32)
        pixels = spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        match self.obs_type:
            case "state":
                names = self.state_names
                dim = len(names["agent_state"]) + len(names["environment_state"])
                return spaces.Box(-1, 1, (dim,), np.float32)
            case "pixels":
                return pixels
            case "pixels_agent_pos":
                return spaces.Dict({"pixels": pixels, "agent_pos": agent})
        raise ValueError(f"obs_type must be 'state', 'pixels' or 'pixels_agent_pos', got {self.obs_type!r}")

    def _info(self, *, success: bool) -> dict[str, Any]:
        agent, environment = self._state()
        info: dict[str, Any] = {
            "agent_state": agent,
            "environment_state": environment,
            "nuisance": self._nuisance.copy(),
            "homography": self._homography.copy(),
            "is_success": success,
            "contacts": self._world.touched(),
        }
        if self._with_masks:
            self._render_picture()
            assert self._scene is not None
            objects = [*self._scene.laid, *self._delayed_objects[0]]
            info["masks"] = self._scene.masks(objects)
            info["keypoints"] = _keypoints(self._scene, objects)
        return info


_TOOL = SceneObject("tool", Disc(TOOL_RADIUS), TOOL_COLOUR, height=TOOL_HEIGHT)


def _arm(x: float, y: float) -> list[tuple[SceneObject, Pose]]:
    """Return the arm whose tool is at (x, y): the forearm (tool to elbow) and the upper arm (elbow to shoulder)."""
    sx, sy = SHOULDER[0] - x, SHOULDER[1] - y
    upper, fore = LINKS
    far = min(math.hypot(sx, sy), upper + fore - 1e-6)
    along = (far * far + fore * fore - upper * upper) / (2 * far)
    aside = math.sqrt(max(fore * fore - along * along, 0.0))
    ux, uy = sx / far, sy / far
    ex, ey = ux * along + uy * aside, uy * along - ux * aside
    return [_link("forearm", x, y, x + ex, y + ey), _link("upper_arm", x + ex, y + ey, *SHOULDER)]


def _link(name: str, ax: float, ay: float, bx: float, by: float) -> tuple[SceneObject, Pose]:
    length = math.hypot(bx - ax, by - ay)
    item = SceneObject(name, Box(length + ARM_WIDTH, ARM_WIDTH), ARM_COLOUR, height=ARM_HEIGHT)
    return item, ((ax + bx) / 2, (ay + by) / 2, math.atan2(by - ay, bx - ax))


def _keypoints(scene: Scene, objects: list[tuple[SceneObject, Pose]]) -> dict[str, Float32[ndarray, "k 2"]]:
    """Return the keypoints (corners, or centre of a disc) of every object as image fractions (x, y)."""
    found: dict[str, Float32[ndarray, "k 2"]] = {}
    for item, (x, y, angle) in objects:
        c, s = math.cos(angle), math.sin(angle)
        points = np.array([(x + c * px - s * py, y + s * px + c * py) for px, py in item.shape.keypoints])
        found.setdefault(item.name, scene.grid.fractions(points))
    return found
