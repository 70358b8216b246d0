"""The default environments: gymnasium's checker, determinism, factors, pictures, physics and experts."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from robossl_envs.factors import FACTORS, VARIED
from robossl_envs.robot_start import HOME
from robossl_envs.scene import draw_camera
from robossl_envs.sheet import draw_sheet
from robossl_envs.tabletop import Tabletop

IDS = ("robossl/Push-v0", "robossl/Reach-v0", "robossl/Sort-v0", "robossl/Choose-v0")
HOMES = tuple(each.replace("-v0", "Home-v0") for each in IDS)
# Nothing has moved yet; the tool has no home.
SAME_PICTURE_OF_A_CLEAN_START = {"latency", "robot_start"}


def make(env_id: str = "robossl/Push-v0", **settings: Any) -> gymnasium.Env:
    return gymnasium.make(env_id, **({"obs_type": "pixels", "render_mode": "rgb_array"} | settings))


def base(env: gymnasium.Env) -> Tabletop:
    return cast(Tabletop, env.unwrapped)


def picture(env: gymnasium.Env, *, seed: int = 0, steps: int = 0, **options: Any) -> np.ndarray:
    seen, _ = env.reset(seed=seed, options=options)
    for _ in range(steps):
        seen, *_ = env.step(base(env).expert())
    return seen


@pytest.mark.parametrize("obs_type", ["state", "pixels", "pixels_agent_pos"])
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_s_checker_is_content(env_id: str, obs_type: str) -> None:
    check_env(make(env_id, obs_type=obs_type).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_seed_gives_the_same_frames_bit_for_bit(env_id: str) -> None:
    def run() -> bytes:
        env = make(env_id)
        seen = [env.reset(seed=5, options={"strengths": "random"})[0]]
        rng = np.random.default_rng(0)
        for _ in range(30):
            seen.append(env.step(rng.uniform(-1, 1, 2).astype(np.float32))[0])
        return np.stack(seen).tobytes()

    assert run() == run()


def test_a_varied_scene_draws_its_factors_and_keeps_the_layout() -> None:
    plain, varied = make("robossl/Push-v0"), make("robossl/PushVaried-v0")
    names, seen = list(FACTORS), []
    for seed in range(40):
        own, info = varied.reset(seed=seed)
        assert np.array_equal(own, varied.reset(seed=seed)[0]), "a seed gives the same picture"
        clean = plain.reset(seed=seed)[1]
        assert np.array_equal(info["environment_state"], clean["environment_state"])
        seen.append(info["nuisance"])
        for name, strength in VARIED.items():
            allowed = {FACTORS[name].clean, *(value for side in FACTORS[name].sides for value in side[:strength])}
            assert any(math.isclose(info["nuisance"][names.index(name)], value, rel_tol=1e-6) for value in allowed)
    drawn = {name for name, values in zip(names, np.array(seen).T, strict=True) if len(set(values)) > 1}
    assert drawn == set(VARIED)


@pytest.mark.parametrize("env_id", HOMES)
def test_the_tool_starts_at_home_or_as_far_away_as_robot_start_says(env_id: str) -> None:
    env = make(env_id, obs_type="state", render_mode=None)
    away = []
    for seed in range(60):
        home = env.reset(seed=seed)[1]
        assert np.abs(home["agent_state"][:2] - HOME).max() <= 0.01
        moved = env.reset(seed=seed, options={"strengths": {"robot_start": 4}})[1]
        assert np.array_equal(home["environment_state"], moved["environment_state"])
        assert not moved["is_success"] and np.abs(moved["agent_state"][:2]).max() <= 0.22
        away.append(math.dist(home["agent_state"][:2], moved["agent_state"][:2]))
    assert np.mean(np.isclose(away, 0.15)) > 0.8 and max(away) < 0.151


def test_a_tool_without_a_home_has_no_robot_start() -> None:
    with pytest.raises(ValueError, match="robot_start has no effect in this environment"):
        make().reset(options={"strengths": {"robot_start": 1}})


def test_what_the_options_name_is_not_drawn() -> None:
    varied = make("robossl/ReachVaried-v0")
    at = list(FACTORS).index("distractors")
    for seed in range(10):
        given = varied.reset(seed=seed, options={"strengths": {"distractors": 5}})[1]["nuisance"]
        assert given[at] == FACTORS["distractors"].sides[0][4]
        assert varied.reset(seed=seed, options={"factors": {"distractors": 3}})[1]["nuisance"][at] == 3
    with pytest.raises(ValueError, match=r"vary takes strengths from 0 to 5 of .*; got hue: 1"):
        make("robossl/Reach-v0", vary={"hue": 1})


@pytest.mark.parametrize("env_id", [*IDS, *HOMES])
def test_experts_solve_a_clean_scene(env_id: str) -> None:
    env, wins = make(env_id, obs_type="state", render_mode=None), 0
    for seed in range(60):
        env.reset(seed=1000 + seed)
        done = cut = False
        while not (done or cut):
            _, _, done, cut, info = env.step(base(env).expert())
        wins += info["is_success"]
    assert wins >= 57


@pytest.mark.parametrize("name", [name for name in FACTORS if name not in SAME_PICTURE_OF_A_CLEAN_START])
def test_every_factor_changes_the_picture_more_with_strength_and_not_the_state(name: str) -> None:
    env = make("robossl/Push-v0", image_size=224)
    clean, before = env.reset(seed=11)
    changes = []
    for strength in (2, 5):  # the mildest blur is under half a pixel
        seen, info = env.reset(seed=11, options={"strengths": {name: strength}})
        changes.append(np.abs(seen.astype(float) - clean).mean())
        assert np.array_equal(info["environment_state"], before["environment_state"])
        assert np.array_equal(info["agent_state"], before["agent_state"])
        index = list(FACTORS).index(name)
        assert np.float32(info["nuisance"][index]) in {np.float32(side[strength - 1]) for side in FACTORS[name].sides}
        assert np.array_equal(np.delete(info["nuisance"], index), np.delete(before["nuisance"], index))
    assert 0 < changes[0] < changes[1]


def test_latency_shows_the_picture_of_some_steps_ago() -> None:
    env = make()
    late = picture(env, seed=3, steps=7, factors={"latency": 5})
    assert np.array_equal(late, picture(env, seed=3, steps=2))


def test_a_larger_picture_is_the_same_scene() -> None:
    small, large = (picture(make(image_size=size), seed=2) for size in (64, 256))
    shrunk = large.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - small).mean() < 1.5


def test_masks_and_keypoints_lie_on_what_they_name() -> None:
    env = make(masks=True, image_size=(96, 128))
    seen, info = env.reset(seed=4)
    assert seen.shape == (96, 128, 3)
    block = info["masks"]["block"]
    assert block.shape == (96, 128)
    assert 100 < block.sum() < 600
    colour = seen[block].mean(axis=0)
    assert colour[2] > colour[0] + 50  # blue, while the table is brown
    inside = info["keypoints"]["block"] * [128, 96]
    rows, columns = np.nonzero(block)
    assert abs(inside[:, 0].mean() - columns.mean()) < 8
    assert abs(inside[:, 1].mean() - rows.mean()) < 8


NAMES = {
    "robossl/Push-v0": {"target", "block"},
    "robossl/Reach-v0": {"target"},
    "robossl/Sort-v0": {"red_bin", "blue_bin", "red", "blue"},
    "robossl/Choose-v0": {"target", "other"},
}


@pytest.mark.parametrize("env_id", IDS)
def test_everything_that_can_be_named_has_a_mask_and_keypoints(env_id: str) -> None:
    env = make(env_id, masks=True, image_size=160)
    _, info = env.reset(seed=4, options={"factors": {"distractors": 3, "occluder": 0.2}})
    known = NAMES[env_id] | {"forearm", "upper_arm", "tool"} | {f"distractor_{number}" for number in range(3)}
    assert set(info["masks"]) == set(info["keypoints"]) == known
    assert np.sum([*info["masks"].values()], axis=0).max() == 1  # a pixel shows one thing
    for name in known - {"upper_arm"}:
        mask, (u, v) = info["masks"][name], info["keypoints"][name].mean(axis=0) * 160
        rows, columns = np.nonzero(mask)
        if len(rows) > 20 and mask[int(v), int(u)]:
            assert columns.min() <= u <= columns.max() and rows.min() <= v <= rows.max()
    assert sum(mask.any() for mask in info["masks"].values()) >= 6


def test_a_target_s_mask_ends_where_the_tool_and_the_arm_hide_it() -> None:
    env = make("robossl/Reach-v0", masks=True)
    seen, before = env.reset(seed=1)
    target = before["masks"]["target"]
    red, green, _ = seen[target].mean(axis=0)
    assert red > 2 * green  # of the table red is a quarter more
    hidden, done = target, False
    while not done:
        _, _, done, _, info = env.step(base(env).expert())
        hidden = target & (info["masks"]["tool"] | info["masks"]["forearm"] | info["masks"]["upper_arm"])
        assert np.array_equal(info["masks"]["target"], target & ~hidden)
    assert hidden.sum() > 0.2 * target.sum()


@pytest.mark.parametrize("image_size", [96, (64, 128)])
def test_the_homography_takes_pixels_of_the_clean_picture_to_those_of_this_one(image_size: Any) -> None:
    env = make(masks=True, image_size=image_size)
    strengths = {"camera_shift": 4, "camera_perspective": 5, "camera_rotation": 3, "camera_zoom": 2}
    for seed in range(4):
        seen, clean = env.reset(seed=seed)
        _, moved = env.reset(seed=seed, options={"strengths": strengths})
        assert clean["homography"] == pytest.approx(np.eye(3), abs=1e-9)
        size = seen.shape[1::-1]
        for name in ("block", "target", "tool"):
            points = np.append(clean["keypoints"][name] * size, np.ones((len(clean["keypoints"][name]), 1)), axis=1)
            found = points @ moved["homography"].T
            assert found[:, :2] / found[:, 2:] == pytest.approx(moved["keypoints"][name] * size, abs=1e-3)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (96, 128), (32, 128), (128, 32)])
def test_a_tilted_camera_sees_no_horizon_in_a_picture_of_any_shape(height: int, width: int) -> None:
    values = {name: factor.clean for name, factor in FACTORS.items()} | {"camera_perspective": 0.2}
    aspects = np.array([width, height]) / min(width, height)
    for seed in range(50):
        tilt = np.array(draw_camera(values, np.random.default_rng(seed), height=height, width=width).tilt)
        assert 1 - np.abs(tilt) @ aspects > 0.19
        if max(aspects) < 1.5:
            assert np.linalg.norm(tilt) == pytest.approx(0.4)


def test_what_the_state_says_is_where_the_picture_shows_it() -> None:
    env = make(masks=True, image_size=192)
    for seed in range(5):
        _, info = env.reset(
            seed=seed, options={"strengths": {"camera_rotation": 4, "camera_zoom": 2, "camera_shift": 3}}
        )
        x, y, *_ = info["environment_state"]
        scene = base(env)._scene
        assert scene is not None
        (u, v), _ = scene.grid.fractions(np.array([[x, y], [0, 0]], float))
        tool_u, tool_v = info["keypoints"]["tool"][0]
        assert scene.grid.fractions(info["agent_state"][None, :2].astype(float))[0] == pytest.approx((tool_u, tool_v))
        mask = info["masks"]["block"]
        if 0.1 < u < 0.9 and 0.1 < v < 0.9 and mask.sum() > 200:
            near = mask[int(v * 192) - 8 : int(v * 192) + 9, int(u * 192) - 8 : int(u * 192) + 9]
            assert near.any()


def test_the_tool_pushes_the_block_and_stops_at_the_rail() -> None:
    env = make(obs_type="state", render_mode=None)
    _, info = env.reset(seed=0)
    block, touched = info["environment_state"][:2], False
    for _ in range(60):
        tool, block = info["agent_state"][:2], info["environment_state"][:2]
        way = block - tool
        *_, info = env.step((way / max(np.linalg.norm(way), 1e-6)).astype(np.float32))
        touched |= info["contacts"] == ("block",)
    assert touched
    for _ in range(40):
        *_, info = env.step(np.array([1, 0], np.float32))
    assert info["agent_state"][0] < 0.25
    assert abs(info["agent_state"][2]) < 0.05


def test_a_block_that_is_let_go_comes_to_rest() -> None:
    env = make(obs_type="state", render_mode=None)
    _, info = env.reset(seed=0)
    for _ in range(10):
        *_, info = env.step(base(env).expert())
    for _ in range(5):
        *_, info = env.step(np.array([0, 0], np.float32))
    rest = info["environment_state"]
    *_, info = env.step(np.array([0, 0], np.float32))
    assert np.abs(info["environment_state"] - rest).max() < 1e-4


def test_rewards_grow_towards_success() -> None:
    env = make("robossl/Reach-v0", obs_type="state", render_mode=None)
    env.reset(seed=1)
    rewards, done = [], False
    while not done:
        _, reward, done, _, _ = env.step(base(env).expert())
        rewards.append(reward)
    assert rewards == sorted(rewards)
    assert rewards[-1] == 1.0
    sparse = make("robossl/Reach-v0", obs_type="state", render_mode=None, reward_type="success")
    sparse.reset(seed=1)
    assert sparse.step(base(sparse).expert())[1] == 0.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strengths": {"brightnes": 3}}, "unknown factor 'brightnes'; choose from brightness"),
        ({"strengths": {"blur": 6}}, "strength of blur must be a whole number from 0 to 5, got 6"),
        ({"factors": {"blur": 0.5}}, "blur must lie between 0 and 0.012, got 0.5"),
        ({"factors": {"latency": 2.7}}, "latency must be a whole number from 0 to 8, got 2.7"),
        ({"factors": {"distractors": 3.9}}, "distractors must be a whole number from 0 to 8, got 3.9"),
        ({"factor": {}}, "unknown option factor; choose from strengths, factors"),
    ],
)
def test_wrong_options_are_one_clear_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("'", ".").replace(";", ".")):
        make().reset(options=options)


@pytest.mark.parametrize("kind", ["strengths", "factors"])
def test_where_nothing_can_be_moved_its_factors_are_refused(kind: str) -> None:
    env = make("robossl/Reach-v0")
    with pytest.raises(ValueError, match="manip_object_size has no effect in this environment; choose from br"):
        env.reset(options={kind: {"blur": 0, "manip_object_size": 1}})
    for seed in range(5):
        _, info = env.reset(seed=seed, options={"strengths": "random"})
        nuisance = dict(zip(FACTORS, info["nuisance"], strict=True))
        lacking = [name for name in FACTORS if name not in base(env).factors]
        assert len(lacking) == 4 and all(nuisance[name] == FACTORS[name].clean for name in lacking)


def test_the_sheet_shows_what_can_be_set(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "robossl_envs.sheet", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.startswith("usage: ") and not list(tmp_path.iterdir())
    heights = [draw_sheet(env_id).height for env_id in ("robossl/Reach-v0", "robossl/Push-v0")]
    assert heights[0] * 10 == heights[1] * 8


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"obs_type": "picture"}, "obs_type must be 'state', 'pixels' or 'pixels_agent_pos', got 'picture'"),
        ({"image_size": 8}, "image_size must be at least 16 pixels per side, got 8"),
        ({"reward_type": "sparse"}, "reward_type must be 'dense' or 'success', got 'sparse'"),
    ],
)
def test_wrong_settings_are_one_clear_line(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(**settings)


def test_actions_that_are_no_numbers_are_refused_and_long_ones_cut() -> None:
    env = make(obs_type="state", render_mode=None).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(np.array([math.nan, 0], np.float32))
    _, first = env.reset(seed=0)
    *_, info = env.step(np.array([10, 10], np.float32))
    moved = np.linalg.norm(info["agent_state"][:2] - first["agent_state"][:2])
    assert moved <= 0.0305
