"""Embeddings in place of pixels, single and in a vector, with real encoders."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import robossl_envs  # noqa: F401  registers the environments
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from robossl_envs.encoded import EncodedObservation, EncodedVectorObservation

from robossl.encoders.encoder import EncoderConfig
from robossl.encoders.inference import FrameEncoder, random_encoder

SIZE = 32


@pytest.fixture(scope="module")
def encode() -> FrameEncoder:
    return random_encoder(EncoderConfig("test_resnet", input_hw=(SIZE, SIZE), zero_init_last=False), seed=0)


def pixels(**settings: Any) -> gymnasium.Env:
    return gymnasium.make("robossl/Reach-v0", image_size=SIZE, **({"obs_type": "pixels"} | settings))


def embedded(encode: FrameEncoder, frames: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([encode(frame[None])["pooled"][0] for frame in frames])


def test_what_is_seen_are_the_embeddings_of_the_last_frames(encode: FrameEncoder) -> None:
    env, bare = EncodedObservation(pixels(), encode, stack=3), pixels()
    seen, _ = env.reset(seed=1)
    frames = [bare.reset(seed=1)[0]] * 3
    assert np.allclose(seen, embedded(encode, frames), atol=1e-5)
    for _ in range(4):
        action = np.array([0.5, -0.5], np.float32)
        seen, *_ = env.step(action)
        frames.append(bare.step(action)[0])
        assert np.allclose(seen, embedded(encode, frames[-3:]), atol=1e-5)
    assert env.observation_space.contains(seen)


def test_what_stands_beside_the_picture_stays(encode: FrameEncoder) -> None:
    env = EncodedObservation(pixels(obs_type="pixels_agent_pos"), encode)
    seen, info = env.reset(seed=1)
    assert env.observation_space.contains(seen)
    assert np.array_equal(seen["agent_pos"], info["agent_state"])
    assert seen["pixels"].shape == (encode.card.outputs["pooled"].shape[1],)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_sees_what_single_environments_see_over_ends_of_episodes(
    encode: FrameEncoder, mode: AutoresetMode
) -> None:
    short = {"max_episode_steps": 3}
    vector = SyncVectorEnv([lambda: pixels(**short)] * 2, autoreset_mode=mode)
    bare = SyncVectorEnv([lambda: pixels(**short)] * 2, autoreset_mode=mode)
    env = EncodedVectorObservation(vector, encode, stack=2)
    seen, _ = env.reset(seed=[1, 2])
    frames, _ = bare.reset(seed=[1, 2])
    frames = frames.copy()
    before, ended = frames, np.zeros(2, bool)
    for step in range(9):
        actions = np.full((2, 2), 0.1 * step, np.float32)
        seen, _, terminated, truncated, _ = env.step(actions)
        now, _, ends_a, ends_b, _ = bare.step(actions)
        ends = ends_a | ends_b
        assert np.array_equal(ends, terminated | truncated)
        first = ends if mode == AutoresetMode.SAME_STEP else ended
        for k in range(2):
            expected = embedded(encode, [now[k] if first[k] else before[k], now[k]])
            assert np.allclose(seen[k], expected, atol=1e-5)
        before, ended = now.copy(), ends
    assert env.observation_space.contains(seen)


class SameStep(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Resets in the step that ends an episode, as vectors and older wrappers do."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        seen, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            last, (seen, info) = seen, self.env.reset()
            info = {**info, "final_obs": last}
        return seen, reward, terminated, truncated, info


@pytest.mark.parametrize("wrapper", [gymnasium.wrappers.Autoreset, SameStep])
@pytest.mark.parametrize("stack", [2, 4])
def test_an_environment_that_resets_itself_begins_a_new_stack(encode: FrameEncoder, wrapper: Any, stack: int) -> None:
    """Each stack holds frames of one episode: its first one, repeated, and those since."""
    env = EncodedObservation(wrapper(pixels(max_episode_steps=3)), encode, stack=stack)
    bare = wrapper(pixels(max_episode_steps=3))
    env.reset(seed=1)
    frames, ended, num_episodes = [bare.reset(seed=1)[0]] * stack, False, 1
    for step in range(11):
        action = np.array([0.1 * step, -0.5], np.float32)
        seen, _, terminated, truncated, _ = env.step(action)
        frame, _, _, _, info = bare.step(action)
        ends = terminated or truncated
        begins = ended or "final_obs" in info
        frames = [frame] * stack if begins else [*frames, frame]
        num_episodes += begins
        assert np.allclose(seen, embedded(encode, frames[-stack:]), atol=1e-5), step
        ended = ends and "final_obs" not in info
    assert num_episodes > 2
    env.step(np.zeros(2, np.float32))
    seen, _ = env.reset(seed=1)
    assert np.allclose(seen, embedded(encode, [bare.reset(seed=1)[0]] * stack), atol=1e-5)


class Untold(gymnasium.vector.VectorWrapper):
    """A vector whose metadata do not say when it resets."""

    metadata: ClassVar[dict[str, Any]] = {}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_a_vector_that_does_not_say_when_it_resets_begins_new_stacks(encode: FrameEncoder, mode: AutoresetMode) -> None:
    short = [lambda length=length: pixels(max_episode_steps=length) for length in (2, 3)]
    env = EncodedVectorObservation(Untold(SyncVectorEnv(short, autoreset_mode=mode)), encode, stack=3)
    env.reset(seed=[1, 2])
    ended, num_firsts = np.zeros(2, bool), 0
    for step in range(8):
        seen, _, terminated, truncated, _ = env.step(np.full((2, 2), 0.1 * step, np.float32))
        ends = terminated | truncated
        first = ends if mode == AutoresetMode.SAME_STEP else ended
        for k in np.flatnonzero(first):
            parts = seen[k].reshape(3, -1)
            assert np.array_equal(parts[0], parts[1]) and np.array_equal(parts[1], parts[2])
            num_firsts += 1
        ended = ends
    assert num_firsts > 3


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"output": "dense"}, "no vector output 'dense'; choose from pooled"),
        ({"stack": 0}, "stack must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_one_clear_line(encode: FrameEncoder, wanted: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EncodedObservation(pixels(), encode, **wanted)


def test_an_environment_without_pictures_is_refused(encode: FrameEncoder) -> None:
    with pytest.raises(ValueError, match="observations must be, or hold under 'pixels', uint8 pictures"):
        EncodedObservation(pixels(obs_type="state"), encode)
    vector = SyncVectorEnv([pixels], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="NEXT_STEP or SAME_STEP, got DISABLED"):
        EncodedVectorObservation(vector, encode)
