"""Collect episodes with a learner (agent that acts in all environments); AsyncVectorEnv steps the environments.

Each slot (index in the vector) is one environment in its own worker process. The workers record episodes and encode
videos, and never import torch. Observations pass through shared memory. If one process crashes or hangs, all processes
are replaced. Then only the episode of that process counts as failed; all interrupted episodes are played again.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from jaxtyping import Bool
from numpy import ndarray

from robossl.data.worker import start_worker
from robossl.errors import ResourceError, reason
from robossl_envs.agents.agent import AgentObservations, Learner
from robossl_envs.collection.crew import START_SECONDS, describe_exit, limit_threads
from robossl_envs.collection.environment import ENVIRONMENT, STATE, EnvDescription
from robossl_envs.collection.recorder import Recorder
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.todo import AttemptOutcome, EpisodeQueue

if TYPE_CHECKING:
    from robossl.encoders.inference import FrameEncoder

GRACE_SECONDS = 1.0  # time to wait for the exit codes of dead processes


class SlotEnv(gymnasium.Env[dict[str, ndarray], Any]):
    """The environment of one worker. `reset(seed=K)` starts episode K; at its end, `info` holds the outcome."""

    def __init__(
        self, settings: CollectionSettings, description: EnvDescription, parts: Path, action_space: Space[Any]
    ) -> None:
        # AsyncVectorEnv also makes a SlotEnv in the collecting process. That process has no parent and is no worker.
        if multiprocessing.parent_process() is not None:
            start_worker()
        self._task = (settings, description, parts)
        self._recorder: Recorder | None = None
        self._playing = False
        self.action_space = action_space
        spaces: dict[str, Space[Any]] = {"frame": Box(0, 255, (description.height, description.width, 3), np.uint8)}
        dim = sum(column.width for column in description.columns if column.name in (STATE, ENVIRONMENT))
        if dim:
            spaces["state"] = Box(-np.inf, np.inf, (dim,), np.float32)
        self.observation_space = cast("Space[dict[str, ndarray]]", Dict(spaces))
        self._observation = {name: np.zeros(space.shape or (), space.dtype) for name, space in spaces.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start the episode whose number is `seed`; `info` holds the outcome if the start fails."""
        assert seed is not None
        return self._observation, self._attempt(lambda recorder: recorder.begin(seed))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step if an episode is running. If `info` holds an outcome, the episode has ended."""
        info = self._attempt(lambda recorder: recorder.step(action)) if self._playing else {}
        return self._observation, 0.0, bool(info), False, info

    def _attempt(self, act: Callable[[Recorder], int | None]) -> dict[str, Any]:
        """Call `act` with the recorder, and return {} while the episode goes on.

        If the episode has ended or failed, return the fields of its `AttemptOutcome`, except `number`.
        """
        try:
            self._recorder = self._recorder or Recorder(*self._task)
            num_frames = act(self._recorder)
        except ResourceError as error:
            outcome = {"num_frames": 0, "reason": str(error), "disk_full": True}
        # An error in someone else's environment ends this attempt, but not the collection.
        except Exception as error:
            self._recorder = None
            outcome = {"num_frames": 0, "reason": f"{type(error).__name__}: {reason(error)}", "disk_full": False}
        else:
            if not num_frames:
                self._observation["frame"] = self._recorder.frame
                if "state" in self._observation:
                    self._observation["state"] = self._recorder.state
                self._playing = True
                return {}
            outcome = {"num_frames": num_frames, "reason": "", "disk_full": False}
        self._playing = False
        return outcome


class LearnerPool:
    """Plays the episodes of a collection with a learner (agent that acts in all episodes).

    If `encode` is given, the learner also gets the embeddings of the frames.
    """

    def __init__(
        self,
        settings: CollectionSettings,
        description: EnvDescription,
        parts: Path,
        learner: Learner,
        action_space: Space[Any],
        *,
        workers: int,
        hang_seconds: float,
        encode: FrameEncoder | None = None,
    ) -> None:
        self._make = partial(SlotEnv, settings, description, parts, action_space)
        self._encode = encode
        self._learner, self._num_slots, self._hang_seconds = learner, workers, hang_seconds

    def run(self, queue: EpisodeQueue) -> Iterator[AttemptOutcome]:
        """Play all episodes of the queue and yield the outcome of each attempt, as `ActorPool.run` does."""
        while len(queue):
            numbers: list[int | None] = [None] * self._num_slots
            with limit_threads():
                envs = AsyncVectorEnv(
                    [self._make] * self._num_slots,
                    shared_memory=True,
                    copy=False,
                    context="spawn",
                    autoreset_mode=AutoresetMode.DISABLED,
                )
            try:
                yield from self._play(envs, queue, numbers)
                envs.close()
            except (EOFError, OSError, multiprocessing.TimeoutError) as error:
                if isinstance(error, ResourceError):
                    raise
                yield from self._find_failures(envs, queue, numbers)
            finally:
                _end(envs)

    def _play(self, envs: AsyncVectorEnv, queue: EpisodeQueue, numbers: list[int | None]) -> Iterator[AttemptOutcome]:
        """Play until the queue is empty; `numbers` is the current episode of each environment (None if idle)."""
        started = np.zeros(self._num_slots, np.bool_)
        while True:
            while len(queue) and None in numbers:
                fresh = _take(queue, numbers)
                seeds: list[int | None] = [number or 0 for number in numbers]
                envs.reset_async(seed=seeds, options={"reset_mask": fresh})
                _, infos = envs.reset_wait(timeout=max(self._hang_seconds, START_SECONDS))
                started |= fresh
                yield from _outcomes(infos, numbers)
            slots = np.array([slot for slot, number in enumerate(numbers) if number is not None], np.int64)
            if not len(slots):
                return
            envs.step_async(self._act(envs, slots, started))
            *_, infos = envs.step_wait(timeout=self._hang_seconds)
            started[:] = False
            yield from _outcomes(infos, numbers)

    def _act(self, envs: AsyncVectorEnv, slots: ndarray, started: Bool[ndarray, " n"]) -> Any:
        """Return one action for each environment of the vector.

        `slots` are the indices of the environments that play. The others get an action too, but ignore it.
        """
        shown = cast("dict[str, ndarray]", envs.observations)
        states = shown["state"][slots] if "state" in shown else np.zeros((len(slots), 0), np.float32)
        actions = [envs.single_action_space.sample()] * self._num_slots
        frames = shown["frame"][slots]
        embeddings = self._encode(frames)["pooled"] if self._encode else None
        observations = AgentObservations(
            slots=slots, frames=frames, states=states, started=started[slots], embeddings=embeddings
        )
        for slot, action in zip(slots, self._learner(observations), strict=True):
            actions[slot] = action
        return np.stack(actions)

    def _find_failures(
        self, envs: AsyncVectorEnv, queue: EpisodeQueue, numbers: list[int | None]
    ) -> Iterator[AttemptOutcome]:
        """Yield a failure for each environment that crashed or hangs.

        Put the episodes of all other environments back into the queue.
        """
        for process in envs.processes:
            process.join(GRACE_SECONDS / self._num_slots)
        codes = [process.exitcode for process in envs.processes]
        if any(code is not None for code in codes):
            reasons = ["" if code is None else f"the worker {describe_exit(code)}" for code in codes]
        else:
            # No process died, so some process hangs. The pipe of a hanging process holds no answer.
            hung = f"the worker hung for {self._hang_seconds:g} s"
            reasons = ["" if pipe.poll() else hung for pipe in envs.parent_pipes]
        playing = [(number, reasons[slot]) for slot, number in enumerate(numbers) if number is not None]
        for number, why in reversed(playing):
            if not why:
                queue.give_back(number)
        for number, why in playing:
            if why:
                yield AttemptOutcome(number, reason=why)


def _take(queue: EpisodeQueue, numbers: list[int | None]) -> Bool[ndarray, " n"]:
    """Give each idle environment an episode from the queue; return a mask of the environments that got one."""
    fresh = np.zeros(len(numbers), np.bool_)
    for slot, number in enumerate(numbers):
        if number is None:
            numbers[slot] = queue.take()
            fresh[slot] = numbers[slot] is not None
    return fresh


def _outcomes(infos: dict[str, Any], numbers: list[int | None]) -> Iterator[AttemptOutcome]:
    """Yield the outcomes of the episodes that ended in this step, and mark their environments as idle."""
    for slot in np.flatnonzero(infos.get("_reason", [])):
        number = numbers[slot]
        assert number is not None
        numbers[slot] = None
        yield AttemptOutcome(
            number, int(infos["num_frames"][slot]), str(infos["reason"][slot]), bool(infos["disk_full"][slot])
        )


def _end(envs: AsyncVectorEnv) -> None:
    """Kill all processes, because a hanging process reacts neither to `close` nor to SIGTERM."""
    for process in envs.processes:
        process.kill()
        process.join()
    envs.closed = True
