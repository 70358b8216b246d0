"""MetaWorld behind our renderer, where it is installed: experts succeed, pictures stand upright and repeat."""

from __future__ import annotations

import os
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("metaworld", reason="needs robossl[metaworld] in an environment of its own")
os.environ.setdefault("MUJOCO_GL", "egl")

from robossl_envs import metaworld

pytestmark = pytest.mark.filterwarnings("ignore:Constant.s. may be too high:UserWarning")  # of its policies


def play(env: gymnasium.Env[Any, Any], seed: int) -> tuple[np.ndarray, bool]:
    """Pictures of an episode of the expert, and whether it ended with success."""
    _, info = env.reset(seed=seed)
    frames, over = [env.render()], False
    while not over:
        _, _, terminated, truncated, info = env.step(env.get_wrapper_attr("expert")())
        frames.append(env.render())
        over = terminated or truncated
    return np.stack(frames), bool(info["is_success"])


def test_every_task_is_registered_and_the_names_are_metaworld_s() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS

    assert {f"{task}-v3" for task in metaworld.TASKS.split()} == set(ALL_V3_ENVIRONMENTS)
    assert all(f"metaworld/{name}" in gymnasium.registry for name in ALL_V3_ENVIRONMENTS)


def test_the_expert_succeeds_and_the_same_seed_gives_the_same_pictures() -> None:
    env = gymnasium.make("metaworld/push-v3", render_mode="rgb_array", image_size=64)
    first, success = play(env, 3)
    assert success and first.shape[1:] == (64, 64, 3) and first.std() > 20
    play(env, 5)
    again, _ = play(env, 3)
    env.close()
    assert np.array_equal(first, again)


def test_pixels_are_an_observation_and_the_state_has_names() -> None:
    env = gymnasium.make("metaworld/drawer-open-v3", obs_type="pixels", image_size=48)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    names = env.get_wrapper_attr("state_names")
    assert {key: len(value) for key, value in names.items()} == {key: len(info[key]) for key in names}
    env.close()
