"""The worker process of rollouts: plays the expert, and steps environments as it is told. It does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float32, UInt8
from numpy import ndarray

from robossl.data.worker import start_worker
from robossl.errors import InputError, reason
from robossl_envs.agents.agent import action_range
from robossl_envs.collection.environment import (
    ENVIRONMENT,
    STATE,
    Environment,
    frame_size,
    open_env,
    render_frame,
    render_raw,
    state_columns,
)
from robossl_envs.collection.settings import CollectionSettings


@dataclass(frozen=True, slots=True)
class EnvFacts:
    """What the calling process needs to know about an environment."""

    factors: tuple[str, ...]
    proprioception_dim: int
    proprioception_names: tuple[str, ...]
    action_range: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class StepSeen:
    """One step of one episode, as a worker sends it."""

    frame: UInt8[ndarray, "h w 3"]
    proprioception: Float32[ndarray, " p"]
    state: Float32[ndarray, " s"]
    reward: float
    success: bool
    ended: bool


def work(settings: CollectionSettings, connection: Connection) -> None:
    """Run in a worker process: answer questions until the calling process ends."""
    start_worker()
    player: EpisodePlayer | None = None
    while True:
        try:
            what, *question = connection.recv()
        except EOFError:
            return
        try:
            player = player or EpisodePlayer(settings)
            answer = getattr(player, what)(*question)
        except InputError as error:
            answer = error
        # An error in someone else's environment ends the command with one line.
        except Exception as error:
            answer = InputError(f"{settings.env} failed ({type(error).__name__}: {reason(error)})")
        connection.send(answer)


class EpisodePlayer:
    """The environments of one worker, one for each of its slots."""

    def __init__(self, settings: CollectionSettings) -> None:
        self._settings = settings
        self._envs: dict[int, Environment] = {}
        env = self._env(0)
        name = settings.env
        if not (isinstance(env.action_space, Box) and np.issubdtype(env.action_space.dtype, np.floating)):
            raise InputError(f"{name} has actions {env.action_space}; a policy needs a bounded Box of floats")
        if not env.action_space.is_bounded():
            raise InputError(f"{name} has actions without bounds; a policy needs a bounded Box of floats")
        if not env.has_wrapper_attr("expert"):
            raise InputError(f"{name} has no scripted expert (a method `expert`), so there are no demonstrations")
        self._middle, self._half = action_range(env)
        _, info = env.reset(seed=0)
        if "is_success" not in info and "is_success" not in env.step(self._played(np.zeros(self._middle.size)))[4]:
            raise InputError(f"{name} does not report success (`is_success` in info), so policies cannot be scored")
        self._hw = frame_size(render_raw(env), settings.image_size)

    def describe(self) -> EnvFacts:
        env = self._env(0)
        observation, info = env.reset(seed=0)
        factors = env.get_wrapper_attr("factors") if env.has_wrapper_attr("factors") else ()
        dim = len(state_columns(observation, info).get(STATE, ()))
        known = env.get_wrapper_attr("state_names") if env.has_wrapper_attr("state_names") else {}
        names = tuple(map(str, known.get("agent_state", ())))
        low, high = (self._middle - self._half).ravel(), (self._middle + self._half).ravel()
        ends = tuple(map(float, low)), tuple(map(float, high))
        return EnvFacts(tuple(factors), dim, names if len(names) == dim else (), ends)

    def demonstrate(self, scene: int, noise: float) -> dict[str, ndarray]:
        """Play the expert in a scene; return what was seen and done by name, or {} if the expert failed."""
        env, rng = self._env(0), np.random.default_rng([scene, 1])
        env.action_space.seed(scene)
        moment = self._moment(env, *env.reset(seed=scene))
        rows: list[tuple[ndarray, ...]] = []
        while not moment.ended:
            wanted = (np.asarray(env.get_wrapper_attr("expert")(), np.float32) - self._middle) / self._half
            rows.append((moment.frame, moment.proprioception, moment.state, np.ravel(wanted)))
            noisy = np.ravel(wanted) + noise * rng.standard_normal(self._middle.size)
            observation, reward, terminated, truncated, info = env.step(self._played(noisy))
            moment = self._moment(env, observation, info, reward=reward, ended=terminated or truncated)
        if not moment.success:
            return {}
        frames, proprioception, state, actions = (np.stack(column) for column in zip(*rows, strict=True))
        return {
            "frames": frames,
            "proprioception": proprioception,
            "state": state,
            "actions": actions.clip(-1, 1).astype(np.float32),
            "starts": np.arange(len(rows)) == 0,
        }

    def start(self, orders: dict[int, tuple[int, dict[str, int]]]) -> dict[int, StepSeen]:
        """Start an episode in each slot: the seed of its scene, and the strengths of its nuisances."""
        found = {}
        for slot, (scene, strengths) in orders.items():
            env = self._env(slot)
            found[slot] = self._moment(
                env, *env.reset(seed=scene, options={"strengths": strengths} if strengths else None)
            )
        return found

    def step(self, orders: dict[int, tuple[Float32[ndarray, " a"]]]) -> dict[int, StepSeen]:
        """Take one step in each slot."""
        found = {}
        for slot, (action,) in orders.items():
            env = self._env(slot)
            observation, reward, terminated, truncated, info = env.step(self._played(action))
            ended = bool(terminated or truncated)
            found[slot] = self._moment(env, observation, info, reward=float(reward), ended=ended)
        return found

    def _env(self, slot: int) -> Environment:
        if slot not in self._envs:
            self._envs[slot] = open_env(self._settings)
        return self._envs[slot]

    def _played(self, action: ndarray) -> ndarray:
        """Return an action of a policy, in [-1, 1], in the units of the environment."""
        played = self._middle + self._half * np.clip(action, -1, 1).reshape(self._middle.shape)
        units: ndarray = played.astype(self._env(0).action_space.dtype)
        return units

    def _moment(
        self, env: Environment, observation: Any, info: dict[str, Any], *, reward: Any = 0.0, ended: bool = False
    ) -> StepSeen:
        vectors = state_columns(observation, info)
        own = vectors.get(STATE, np.zeros(0, np.float32))
        rest = vectors.get(ENVIRONMENT, np.zeros(0, np.float32))
        # The last frame of an episode is not shown to the policy, so it is not rendered.
        frame = np.zeros((0, 0, 3), np.uint8) if ended else render_frame(env, *self._hw)
        success = bool(info.get("is_success", False))
        return StepSeen(frame, own, np.concatenate([own, rest]), float(reward), success, bool(ended))
