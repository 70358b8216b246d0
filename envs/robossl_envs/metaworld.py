"""MetaWorld's 50 tasks for a Sawyer arm (arXiv:1910.10897), with a faster renderer and the scripted experts.

    robossl collect --module robossl_envs.metaworld --env metaworld/push-v3 --agent expert --frames 10000 --out DIR

This needs `pip install 'robossl[metaworld]'` in a virtual environment of its own, a library for OpenGL (`robossl doctor
metaworld/push-v3` says which) and, without a display, MUJOCO_GL=egl. Frames are rendered without multisampling, shadows
and reflections, because these take most of the time when a CPU renders.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float32, UInt8
from numpy import ndarray

# Slices of MetaWorld's observation; elements 18 to 35 hold hand and objects at the previous step.
HAND, OBJECTS, GOAL = slice(0, 4), slice(4, 18), slice(36, 39)
HAND_NAMES = ("hand.x", "hand.y", "hand.z", "gripper")
POSE = ("x", "y", "z", "q0", "q1", "q2", "q3")
MAX_STEPS = 500  # MetaWorld's own limit for an episode
TASKS = """
    assembly basketball bin-picking box-close button-press-topdown button-press-topdown-wall button-press
    button-press-wall coffee-button coffee-pull coffee-push dial-turn disassemble door-close door-lock door-open
    door-unlock hand-insert drawer-close drawer-open faucet-open faucet-close hammer handle-press-side handle-press
    handle-pull-side handle-pull lever-pull pick-place-wall pick-out-of-hole pick-place plate-slide plate-slide-side
    plate-slide-back plate-slide-back-side peg-insert-side peg-unplug-side soccer stick-push stick-pull push push-wall
    push-back reach reach-wall shelf-place sweep-into sweep window-open window-close
"""


class MetaWorld(gymnasium.Env[Any, Float32[ndarray, " 4"]]):
    """A MetaWorld task with a new random goal in each episode; success ends the episode.

    An action has four values from -1 to 1: three for the displacement of the hand, one for the closing of the gripper.

    Args:
        task: MetaWorld's name of the task, such as "push-v3".
        obs_type: "state" (MetaWorld's observation with the goal) or "pixels".
        image_size: pixels per side of the picture.
        camera: name of one of MetaWorld's cameras.
        render_mode: None or "rgb_array".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 80}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        obs_type: Literal["state", "pixels"] = "state",
        image_size: int = 96,
        camera: str = "corner2",
        render_mode: str | None = None,
    ) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        self.obs_type, self.render_mode = obs_type, render_mode
        self._camera, self._size = camera, image_size
        self._env: Any = ALL_V3_ENVIRONMENTS[task]()
        self._env._partially_observable, self._env._freeze_rand_vec = False, False
        self._env.seeded_rand_vec = self._env._set_task_called = True
        # Delete the cached observation space, because it lacks the goal. MetaWorld then computes it again.
        del self._env.sawyer_observation_space
        self._policy = ENV_POLICY_MAP[task]()
        self._renderer: Any = None
        self.action_space = Box(-1, 1, (4,), np.float32)
        self.observation_space = (
            Box(0, 255, (image_size, image_size, 3), np.uint8)
            if obs_type == "pixels"
            else Box(-np.inf, np.inf, (39,), np.float32)
        )

    @property
    def state_names(self) -> dict[str, tuple[str, ...]]:
        """Names of the dimensions of the state vectors in `info`.

        Positions are in metres and rotations are quaternions. All values of a missing object are 0.
        """
        things = [f"thing_{number}.{part}" for number in (1, 2) for part in POSE]
        return {"agent_state": HAND_NAMES, "environment_state": (*things, "goal.x", "goal.y", "goal.z")}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode with objects and goal at random places; ignore `options`."""
        import mujoco

        super().reset(seed=seed)
        self._env.seed(int(self.np_random.integers(2**31)))
        self._state, _ = self._env.reset()
        # Update the simulation's derived state. Otherwise the first picture would show the previous goal.
        mujoco.mj_forward(self._env.model, self._env.data)
        return self._observation(), self._info(success=False)

    def step(self, action: Float32[ndarray, " 4"]) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step of 12.5 ms."""
        self._state, reward, _, truncated, info = self._env.step(np.clip(action, -1, 1))
        success = bool(info["success"])
        return self._observation(), float(reward), success, truncated, self._info(success=success)

    def expert(self) -> Float32[ndarray, " 4"]:
        """Return the action of MetaWorld's scripted policy for the current state."""
        action: Float32[ndarray, " 4"] = np.clip(self._policy.get_action(self._state), -1, 1).astype(np.float32)
        return action

    def render(self) -> UInt8[ndarray, "h w 3"] | None:
        """Return the current picture; None if `render_mode` is None."""
        return None if self.render_mode is None else self._render_picture()

    def close(self) -> None:
        """Free the OpenGL renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _render_picture(self) -> UInt8[ndarray, "h w 3"]:
        import mujoco

        if self._renderer is None:
            self._env.model.vis.quality.offsamples = 0
            self._renderer = mujoco.Renderer(self._env.model, self._size, self._size)
        self._renderer.update_scene(self._env.data, camera=self._camera)
        flags = self._renderer.scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        frame: UInt8[ndarray, "h w 3"] = self._renderer.render()
        # Corner cameras are mounted upside down, so turn their pictures.
        return frame[::-1, ::-1].copy() if self._camera.startswith("corner") else frame

    def _observation(self) -> Any:
        return self._render_picture() if self.obs_type == "pixels" else self._state.astype(np.float32)

    def _info(self, *, success: bool) -> dict[str, Any]:
        objects = np.concatenate([self._state[OBJECTS], self._state[GOAL]])
        return {
            "agent_state": self._state[HAND].astype(np.float32),
            "environment_state": objects.astype(np.float32),
            "is_success": success,
        }


for _task in TASKS.split():
    gymnasium.register(
        f"metaworld/{_task}-v3",
        entry_point="robossl_envs.metaworld:MetaWorld",
        kwargs={"task": f"{_task}-v3"},
        max_episode_steps=MAX_STEPS,
        disable_env_checker=True,
    )
