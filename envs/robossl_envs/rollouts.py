"""Roll out policies: environments in worker processes without torch that step together, so frames come in batches.

The policy is in the calling process. Each wave of episodes starts together; each step asks the policy once for all
episodes that still run. So the frames that a policy sees in one call do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy import ndarray

from robossl.errors import InputError, ResourceError
from robossl.policies.simulator import Act, Demonstrations, Rollout, RolloutView
from robossl_envs.collection.crew import describe_exit, limit_threads
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.factors import STRENGTHS
from robossl_envs.rollout_worker import EnvFacts, StepSeen, work

TOGETHER = 32  # episodes that are played at the same time
PATIENCE_SECONDS = 120.0  # time after which a worker that does not answer is given up


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
                process = context.Process(target=work, args=(settings, theirs), daemon=True)
                process.start()
                theirs.close()
                self._workers.append((process, ours))
        try:
            facts: EnvFacts = self._ask({0: ("describe",)})[0]
        except BaseException:
            self._end()
            raise
        self.factors, self.proprioception_dim = facts.factors, facts.proprioception_dim
        self.proprioception_names, self.action_range = facts.proprioception_names, facts.action_range

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

    def _ask_slots(self, what: str, orders: Mapping[int, tuple[Any, ...]]) -> dict[int, StepSeen]:
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
