"""Roll out policies: environments in worker processes without torch that step together, so frames come in batches.

The policy is in the calling process. Each wave of episodes starts together; each step asks the policy once for all
episodes that still run. So the frames that a policy sees in one call do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float32, UInt8
from numpy import ndarray

from robossl.data.worker import start_worker
from robossl.errors import InputError, ResourceError, reason
from robossl.policies.simulator import Act, Demonstrations, Rollout, RolloutView
from robossl_envs.agents.agent import action_range
from robossl_envs.collection.crew import describe_exit, limit_threads
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
from robossl_envs.factors import STRENGTHS

TOGETHER = 32  # episodes that are played at the same time
PATIENCE_SECONDS = 120.0  # time after which a worker that does not answer is given up


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the calling process needs to know about an environment."""

    factors: tuple[str, ...]
    proprioception_dim: int


@dataclass(frozen=True, slots=True)
class _Moment:
    """One step of one episode, as a worker sends it."""

    frame: UInt8[ndarray, "h w 3"]
    proprioception: Float32[ndarray, " p"]
    state: Float32[ndarray, " s"]
    reward: float
    success: bool
    ended: bool


class EnvSimulator:
    """Plays the expert and policies in a registered gymnasium environment (`robossl.policies.simulator.Simulator`).

    Args:
        env: Id of the environment.
        workers: Number of worker processes.
        image_size: Shorter side of the frames in pixels.
        modules: Packages to import first because they register environments.

    Raises:
        InputError: the environment is unknown or fails, its actions are no bounded Box of floats, it has no scripted
            expert, or it does not report success.
    """

    largest_strength = STRENGTHS

    def __init__(self, env: str, *, workers: int, image_size: int, modules: tuple[str, ...] = ()) -> None:
        settings = CollectionSettings(env, "expert", image_size, modules=modules)
        settings.check()
        self._env = env
        self._workers: list[tuple[Any, Connection]] = []
        context = get_context("spawn")
        with limit_threads():
            for _ in range(workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(settings, theirs), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))
        try:
            facts: _Facts = self._ask({0: ("describe",)})[0]
        except BaseException:
            self._end()
            raise
        self.factors, self.proprioception_dim = facts.factors, facts.proprioception_dim

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def demonstrate(self, scenes: Sequence[int], *, episodes: int, noise: float) -> Demonstrations:
        """Play the expert until it has succeeded in enough scenes; see `Simulator.demonstrate`."""
        found: list[dict[str, ndarray]] = []
        num_failed = 0
        for first in range(0, len(scenes), len(self._workers)):
            part = scenes[first : first + len(self._workers)]
            played = self._ask({at: ("demonstrate", scene, noise) for at, scene in enumerate(part)})
            for each in (played[at] for at in range(len(part))):
                if len(found) < episodes:
                    found += [each] if each else []
                    num_failed += not each
            if len(found) == episodes:
                joined = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
                return Demonstrations(**joined, num_episodes=episodes, num_failed=num_failed)
        raise InputError(
            f"the expert of {self._env} succeeds in {len(found)} of {len(scenes)} scenes with action noise {noise:g}, "
            f"and {episodes} demonstrations are needed; ask for less noise or fewer demonstrations"
        )

    def play(
        self, act: Act, *, scenes: Sequence[int], strengths: Mapping[str, int], watch: Callable[[int], None]
    ) -> list[Rollout]:
        """Play an episode of the policy in each scene; see `Simulator.play`."""
        found: list[Rollout] = []
        for first in range(0, len(scenes), TOGETHER):
            found += self._play_together(act, scenes[first : first + TOGETHER], dict(strengths), watch)
        return found

    def _play_together(
        self, act: Act, scenes: Sequence[int], strengths: dict[str, int], watch: Callable[[int], None]
    ) -> list[Rollout]:
        count = len(scenes)
        moments = self._ask_slots("start", {slot: (scene, strengths) for slot, scene in enumerate(scenes)})
        rewards, successes, final = np.zeros(count), np.zeros(count, bool), np.zeros(count, bool)
        lengths = np.zeros(count, int)
        started = True
        while moments:
            slots = np.array(sorted(moments))
            rows = [moments[slot] for slot in slots]
            actions = act(
                RolloutView(
                    slots,
                    np.array(scenes)[slots],
                    started,
                    np.stack([row.frame for row in rows]),
                    np.stack([row.proprioception for row in rows]),
                    np.stack([row.state for row in rows]),
                )
            )
            started = False
            moments = self._ask_slots("step", {int(s): (a,) for s, a in zip(slots, actions, strict=True)})
            for slot, moment in moments.items():
                rewards[slot] += moment.reward
                lengths[slot] += 1
                successes[slot] |= moment.success
                final[slot] = moment.success
            running = {slot: moment for slot, moment in moments.items() if not moment.ended}
            watch(len(moments) - len(running))
            moments = running
        return [
            Rollout(scene, bool(successes[k]), bool(final[k]), float(rewards[k]), int(lengths[k]))
            for k, scene in enumerate(scenes)
        ]

    def _ask_slots(self, what: str, orders: Mapping[int, tuple[Any, ...]]) -> dict[int, _Moment]:
        """Give each slot's order to its worker; a slot (index of an episode) always has the same worker."""
        split: dict[int, dict[int, tuple[Any, ...]]] = {}
        for slot, order in orders.items():
            split.setdefault(slot % len(self._workers), {})[slot] = order
        answers = self._ask({at: (what, each) for at, each in split.items()})
        return {slot: moment for answer in answers.values() for slot, moment in answer.items()}

    def _ask(self, questions: Mapping[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Send a question to some workers, and return their answers by the worker's index."""
        for at, question in questions.items():
            try:
                self._workers[at][1].send(question)
            except (BrokenPipeError, OSError):
                self._refuse_dead(at)
        answers = {}
        for at in questions:
            connection = self._workers[at][1]
            if not connection.poll(PATIENCE_SECONDS):
                raise ResourceError(f"a worker that plays {self._env} hung for {PATIENCE_SECONDS:g} s; run it again")
            try:
                answers[at] = connection.recv()
            except (EOFError, OSError):
                self._refuse_dead(at)
        for answer in answers.values():
            if isinstance(answer, InputError):
                raise answer
        return answers

    def _refuse_dead(self, at: int) -> None:
        process = self._workers[at][0]
        process.join()
        raise ResourceError(
            f"a worker that plays {self._env} {describe_exit(process.exitcode)}; run the same command again"
        ) from None

    def _end(self) -> None:
        for process, connection in self._workers:
            process.kill()
            process.join()
            connection.close()


def _work(settings: CollectionSettings, connection: Connection) -> None:
    """Run in a worker process: answer questions until the calling process ends."""
    start_worker()
    player: _Player | None = None
    while True:
        try:
            what, *question = connection.recv()
        except EOFError:
            return
        try:
            player = player or _Player(settings)
            answer = getattr(player, what)(*question)
        except InputError as error:
            answer = error
        # An error in someone else's environment ends the command with one line.
        except Exception as error:
            answer = InputError(f"{settings.env} failed ({type(error).__name__}: {reason(error)})")
        connection.send(answer)


class _Player:
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

    def describe(self) -> _Facts:
        env = self._env(0)
        observation, info = env.reset(seed=0)
        factors = env.get_wrapper_attr("factors") if env.has_wrapper_attr("factors") else ()
        return _Facts(tuple(factors), len(state_columns(observation, info).get(STATE, ())))

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

    def start(self, orders: dict[int, tuple[int, dict[str, int]]]) -> dict[int, _Moment]:
        """Start an episode in each slot: the seed of its scene, and the strengths of its nuisances."""
        found = {}
        for slot, (scene, strengths) in orders.items():
            env = self._env(slot)
            found[slot] = self._moment(
                env, *env.reset(seed=scene, options={"strengths": strengths} if strengths else None)
            )
        return found

    def step(self, orders: dict[int, tuple[Float32[ndarray, " a"]]]) -> dict[int, _Moment]:
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
    ) -> _Moment:
        vectors = state_columns(observation, info)
        own = vectors.get(STATE, np.zeros(0, np.float32))
        rest = vectors.get(ENVIRONMENT, np.zeros(0, np.float32))
        # The last frame of an episode is not shown to the policy, so it is not rendered.
        frame = np.zeros((0, 0, 3), np.uint8) if ended else render_frame(env, *self._hw)
        success = bool(info.get("is_success", False))
        return _Moment(frame, own, np.concatenate([own, rest]), float(reward), success, bool(ended))
