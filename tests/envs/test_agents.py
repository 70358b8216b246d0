"""Agents: what they draw, where they go, and which action spaces they refuse."""

from __future__ import annotations

from typing import Any

import dots  # noqa: F401
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from robossl_envs.agents import AGENTS, resolve_agent
from robossl_envs.agents.agent import AgentObservations
from robossl_envs.agents.cells import CellHasher
from robossl_envs.agents.novelty import embedding_distillation
from robossl_envs.agents.pink import coloured_noise
from robossl_envs.agents.rnd import frame_distillation, grey_views
from torch import Tensor

from robossl.errors import InputError

LEARNERS = [name for name in AGENTS if resolve_agent(name).learns]
ACTORS = [name for name in AGENTS if name not in LEARNERS]


def make(name: str = "Known", steps: int = 200) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(f"dots/{name}-v0", render_mode="rgb_array", max_episode_steps=steps, disable_env_checker=True)


def seen(env: gymnasium.Env[Any, Any], state: Any, *, started: bool) -> AgentObservations:
    frames = np.asarray(env.render())[None]
    embeddings = np.float32(frames[:, ::6, ::6].reshape(1, -1))  # an encoder as plain as can be
    return AgentObservations(np.zeros(1, np.int64), frames, np.float32(state)[None], np.array([started]), embeddings)


def walk(name: str, num_steps: int, *, env_name: str = "Known", seed: int = 0, with_state: bool = True) -> np.ndarray:
    """Where an agent goes in episodes of 100 steps: states (t, 2)."""
    env, rng, places = make(env_name, 100), np.random.default_rng(seed), []
    agent_class: Any = resolve_agent(name)
    learner = agent_class(env, rng, 1) if agent_class.learns else None
    while len(places) < num_steps:
        state, _ = env.reset(seed=int(rng.integers(1000)))
        actor = None if learner else agent_class(env, rng, 100)
        over, started = False, True
        while not over:
            places.append(state.copy())
            shown = state if with_state else np.zeros(0)
            action = learner(seen(env, shown, started=started))[0] if learner else actor()
            assert env.action_space.contains(action)
            state, _, terminated, truncated, _ = env.step(action)
            over, started = terminated or truncated, False
    return np.array(places[:num_steps])


def coverage(places: np.ndarray) -> int:
    return len(np.unique(np.floor((places + 1) * 9.99), axis=0))


@pytest.mark.parametrize("name", ACTORS)
def test_the_same_generator_gives_the_same_actions(name: str) -> None:
    assert np.array_equal(walk(name, 150, seed=3), walk(name, 150, seed=3))


@pytest.mark.parametrize("name", [name for name in ACTORS if name != "expert"])
def test_another_generator_gives_others(name: str) -> None:
    env: Any = make()
    actor: Any = resolve_agent(name)
    env.reset(seed=0)
    one, other = (actor(env, np.random.default_rng(seed), 200) for seed in (0, 1))
    assert not np.array_equal(np.stack([one() for _ in range(5)]), np.stack([other() for _ in range(5)]))


def test_pink_noise_has_unit_variance_and_falls_with_frequency() -> None:
    noise = coloured_noise(np.random.default_rng(0), 256, 2000)
    assert noise.shape == (256, 2000)
    assert np.square(noise).mean() == pytest.approx(1, abs=0.02)
    power = np.square(np.abs(np.fft.rfft(noise, axis=0))).mean(axis=1)
    frequency = np.fft.rfftfreq(256)
    slope, _ = np.polyfit(np.log(frequency[1:-1]), np.log(power[1:-1]), 1)
    assert slope == pytest.approx(-1, abs=0.03)
    white = coloured_noise(np.random.default_rng(0), 255, 2000, beta=0)
    assert np.square(white).mean() == pytest.approx(1, abs=0.02)
    assert abs(np.mean(white[1:] * white[:-1])) < 0.02


def test_ornstein_uhlenbeck_stays_about_the_middle() -> None:
    env: Any = make()
    act: Any = resolve_agent("ornstein_uhlenbeck")(env, np.random.default_rng(0), 0)
    actions = np.stack([act() for _ in range(20_000)])
    theta, sigma = 0.15, 0.2
    assert actions.std() == pytest.approx(sigma / np.sqrt(2 * theta - theta**2), rel=0.1)
    assert np.corrcoef(actions[1:, 0], actions[:-1, 0])[0, 1] == pytest.approx(1 - theta, abs=0.02)


def test_the_expert_succeeds_and_with_noise_it_strays() -> None:
    env = make("Known")
    lengths = {}
    for name in ("expert", "noisy_expert"):
        rng = np.random.default_rng(0)
        lengths[name] = []
        for seed in range(10):
            env.reset(seed=seed)
            actor: Any = resolve_agent(name)(env, rng, 200)
            over, count = False, 0
            while not over:
                _, _, over, truncated, info = env.step(actor())
                over, count = over or truncated, count + 1
            assert name == "noisy_expert" or info["is_success"]
            lengths[name].append(count)
    assert sum(lengths["noisy_expert"]) > sum(lengths["expert"])


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("env_name", ["Known", "Steps"])
def test_novelty_covers_more_than_noise(name: str, env_name: str) -> None:
    noise = coverage(walk("random", 500, env_name=env_name))
    assert coverage(walk(name, 500, env_name=env_name)) > 1.3 * noise


@pytest.mark.parametrize("name", LEARNERS)
def test_learners_do_without_a_state(name: str) -> None:
    assert coverage(walk(name, 400, with_state=False)) > coverage(walk("random", 400))


def test_cells_tell_places_apart_whatever_their_scale() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(-1, 1, (600, 3)) * (0.01, 100, 0)
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    cells = CellHasher(rng)
    slots, started = np.zeros(1, np.int64), np.zeros(1, np.bool_)
    codes = [int(cells(AgentObservations(slots, frames, np.float32(row)[None], started))[0]) for row in places]
    assert set(codes[:255]) == {0}
    inside = {code: places[256:][np.array(codes[256:]) == code] / (0.01, 100, 1) for code in set(codes[256:])}
    assert len(inside) > 8
    assert np.mean([rows[:, :2].std(axis=0) for rows in inside.values()]) < 0.4  # of all it is 0.58


def old_and_new(kind: str) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    if kind == "embeddings":
        return torch.from_numpy(rng.normal(size=(2, 8, 48)).astype(np.float32) * 3 + 1).unbind()
    old = np.zeros((8, 48, 48, 3), np.uint8)
    old[:, 10:20, 10:20] = 200
    return grey_views(old), grey_views(rng.integers(0, 255, (8, 48, 48, 3), np.uint8))


@pytest.mark.parametrize("kind", ["frames", "embeddings"])
def test_the_bonus_falls_on_what_was_learnt_and_not_on_what_is_new(kind: str) -> None:
    bonus = frame_distillation(seed=0) if kind == "frames" else embedding_distillation(48, seed=0)
    old, new = old_and_new(kind)
    first = bonus(old).mean()
    for _ in range(150):
        bonus(old)
    assert bonus(old).mean() < 0.1 * first
    assert bonus(new).mean() > 3 * bonus(old).mean()


@pytest.mark.parametrize("name", ["ornstein_uhlenbeck", "pink", "noisy_expert", "expert"])
def test_discrete_actions_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^dots/Steps-v0 has .*$") as caught:
        resolve_agent(name).check(make("Steps"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in ("random", "expert")])
def test_whole_numbers_are_refused_by_who_acts_in_floats(name: str) -> None:
    with pytest.raises(InputError, match=r"^dots/Whole-v0 has actions Box.*int64.*; this agent acts in floats, use"):
        resolve_agent(name).check(make("Whole"))
    resolve_agent("random").check(make("Whole"))


HUGE = {
    "as large as float32 allows": Box(-3e38, 3e38, (2,), np.float32),
    "on one side": Box(np.float32([-1, 0]), np.float32([3.4e38, 1]), dtype=np.float32),
    "beyond float32": Box(-1.7e308, 1.7e308, (2,), np.float64),
}


@pytest.mark.parametrize("kind", HUGE)
@pytest.mark.parametrize("name", [name for name in AGENTS if name not in ("expert", "novelty")])
def test_huge_bounds_give_finite_actions(name: str, kind: str) -> None:
    if (name, kind) == ("random", "beyond float32"):
        pytest.skip("gymnasium itself cannot draw from it")
    env = make()
    env.unwrapped.action_space = HUGE[kind]
    agent_class: Any = resolve_agent(name)
    agent_class.check(env)
    state, _ = env.reset(seed=0)
    agent = agent_class(env, np.random.default_rng(0), 1 if agent_class.learns else 200)
    shown = seen(env, state, started=True)
    actions = np.array([agent(shown)[0] if agent_class.learns else agent() for _ in range(100)])
    assert np.isfinite(actions.astype(np.float32)).all()
    assert all(action in HUGE[kind] for action in actions.astype(HUGE[kind].dtype))


@pytest.mark.parametrize("name", [name for name in AGENTS if name not in ("random", "expert")])
def test_missing_bounds_are_refused_with_the_agent_that_can_act(name: str) -> None:
    env = make()
    env.unwrapped.action_space = Box(np.float32([-1, -np.inf]), np.float32([1, 1]), dtype=np.float32)
    with pytest.raises(InputError, match=r"this agent needs a bounded Box, use random$"):
        resolve_agent(name).check(env)
    resolve_agent("random").check(env)


@pytest.mark.parametrize("name", AGENTS)
def test_other_actions_are_refused_by_all(name: str) -> None:
    with pytest.raises(InputError, match=r"has actions Dict"):
        resolve_agent(name).check(make("Odd"))


def test_an_unknown_agent_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown agent 'rdn'; did you mean 'rnd'"):
        resolve_agent("rdn")
