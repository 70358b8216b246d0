"""Environment wrappers that give a learner embeddings instead of pixels, by putting an encoder in between.

    encode = load_encoder("models/simclr_resnet18")          # torch, ONNX, or a served encoder
    env = EncodedObservation(gymnasium.make("robossl/Push-v0", obs_type="pixels"), encode, stack=3)

The learner receives a float32 vector, so that, for example, Stable-Baselines3's MlpPolicy works without changes.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

from robossl.encoders.inference import FrameEncoder

# If `info` has one of these keys, this step ended an episode and started the next one.
FINAL = ("final_obs", "final_observation")


class EncodedObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Replaces the picture in an observation with its embedding; keeps other entries of a dict observation.

    With `stack` above 1, the embeddings of the last frames are joined to one vector (the stack). Each episode starts a
    new stack, even if the wrapped environment resets itself. The environment may reset itself in the step after
    the end of an episode (gymnasium's Autoreset). It may also do so in the last step of the episode, and then put the
    last observation in `info["final_obs"]`.

    Args:
        env: environment whose observations are uint8 pictures (h, w, 3), or dicts that contain such a picture.
        encode: the encoder.
        output: name of an encoder output with one vector per frame.
        stack: number of embeddings in the vector, newest last. At the start of an episode, the first embedding is
            repeated.
        key: key of the picture in a dict observation.

    Raises:
        ValueError: the observations hold no picture, the encoder has no output of vectors with the name `output`, or
            `stack` is below 1.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        encode: FrameEncoder,
        *,
        output: str = "pooled",
        stack: int = 1,
        key: str = "pixels",
    ) -> None:
        super().__init__(env)
        self._frames = _EmbeddingStack(env.observation_space, encode, output=output, stack=stack, key=key)
        self.observation_space = self._frames.space
        self._ended = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; return its first observation, with the embedding repeated to fill the stack."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._ended = False
        return self._one(observation, first=True), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take one step and encode the new observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        ends = bool(terminated or truncated)
        is_reset_now = ends and any(name in info for name in FINAL)
        encoded = self._one(observation, first=self._ended or is_reset_now)
        self._ended = ends and not is_reset_now
        return encoded, reward, terminated, truncated, info

    def _one(self, observation: Any, *, first: bool) -> Any:
        frames = self._frames.picture_of(observation)[None]
        return self._frames.replaced(observation, self._frames.push(frames, np.array([first]))[0])


class EncodedVectorObservation(VectorWrapper):
    """`EncodedObservation` for a gymnasium vector of environments; calls the encoder once per step for all of them.

    Each episode starts a new stack of embeddings. With AutoresetMode.SAME_STEP, the last observation of an ended
    episode, in `info["final_obs"]`, is not encoded.

    Raises:
        ValueError: for the reasons that `EncodedObservation` gives, or because the autoreset mode is DISABLED.
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        encode: FrameEncoder,
        *,
        output: str = "pooled",
        stack: int = 1,
        key: str = "pixels",
    ) -> None:
        super().__init__(env)
        self._mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if self._mode == AutoresetMode.DISABLED:
            raise ValueError(
                "a vector of encoded environments needs autoreset_mode NEXT_STEP or SAME_STEP, got DISABLED"
            )
        self._frames = _EmbeddingStack(env.single_observation_space, encode, output=output, stack=stack, key=key)
        self.single_observation_space = self._frames.space
        self.observation_space = batch_space(self._frames.space, env.num_envs)
        self._ended = np.zeros(env.num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in all environments; return their encoded first observations."""
        observations, info = self.env.reset(seed=seed, options=options)
        self._ended[:] = False
        return self._all(observations, np.ones(self.num_envs, bool)), info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Take one step in all environments and encode their observations."""
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        ends = terminated | truncated
        is_reset_now = ends if self._mode == AutoresetMode.SAME_STEP else np.zeros_like(ends)
        # If the metadata of `env` do not give its autoreset mode, `info` still says which environments were reset.
        for name in FINAL:
            is_reset_now = is_reset_now | (ends & np.asarray(info.get(f"_{name}", False)))
        encoded = self._all(observations, self._ended | is_reset_now)
        self._ended = ends & ~is_reset_now
        return encoded, rewards, terminated, truncated, info

    def _all(self, observations: Any, first: Bool[ndarray, " n"]) -> Any:
        return self._frames.replaced(observations, self._frames.push(self._frames.picture_of(observations), first))


class _EmbeddingStack:
    """Finds the picture in an observation, and stacks the embeddings of the last frames."""

    def __init__(self, space: spaces.Space[Any], encode: FrameEncoder, *, output: str, stack: int, key: str) -> None:
        self._key = key if isinstance(space, spaces.Dict) else None
        picture = space[key] if isinstance(space, spaces.Dict) and key in space.spaces else space
        if not (isinstance(picture, spaces.Box) and picture.dtype == np.uint8 and len(picture.shape) == 3):
            raise ValueError(f"observations must be, or hold under {key!r}, uint8 pictures (h, w, 3), got {space}")
        if output not in encode.card.outputs or len(encode.card.outputs[output].shape) != 2:
            vectors = [name for name, spec in encode.card.outputs.items() if len(spec.shape) == 2]
            raise ValueError(f"{encode.card.name} has no vector output {output!r}; choose from {', '.join(vectors)}")
        if stack < 1:
            raise ValueError(f"stack must be at least 1, got {stack}")
        self._encode, self._output, self._stack = encode, output, stack
        self._dim = int(encode.card.outputs[output].shape[1])
        self._kept: Float32[ndarray, "n stack d"] | None = None
        vector = spaces.Box(-np.inf, np.inf, (stack * self._dim,), np.float32)
        self.space: spaces.Space[Any] = vector
        if isinstance(space, spaces.Dict):
            self.space = spaces.Dict({name: vector if name == key else part for name, part in space.spaces.items()})

    def picture_of(self, observation: Any) -> UInt8[ndarray, "*n h w 3"]:
        """Return the picture in an observation, or the pictures in a batch of observations."""
        found: ndarray = observation if self._key is None else observation[self._key]
        return found

    def push(self, frames: UInt8[ndarray, "n h w 3"], first: Bool[ndarray, " n"]) -> Float32[ndarray, "n s"]:
        """Encode one frame per environment and append each embedding to its stack; return the stacks as vectors.

        Row k of `frames` belongs to environment k. If `first[k]` is true, the embedding fills the whole stack k.
        """
        new = self._encode(frames)[self._output].astype(np.float32, copy=False)
        if self._kept is None or len(self._kept) != len(new):
            self._kept = np.zeros((len(new), self._stack, self._dim), np.float32)
        self._kept[:, :-1] = self._kept[:, 1:]
        self._kept[:, -1] = new
        self._kept[first] = new[first, None]
        return self._kept.reshape(len(new), -1).copy()

    def replaced(self, observation: Any, embedding: ndarray) -> Any:
        """Return the observation with the embedding in place of the picture."""
        return embedding if self._key is None else {**observation, self._key: embedding}
