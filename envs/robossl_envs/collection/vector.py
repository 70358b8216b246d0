"""Agents that learn across episodes: gymnasium's AsyncVectorEnv steps the environments, the agent acts on all of them.

The workers record and encode, and never import torch; observations come through shared memory. A crash or a hang ends
the whole vector, which is made anew: the episode at fault is counted, those beside it are played again.
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
from robossl_envs.agents.agent import Learner, Seen
from robossl_envs.collection.crew import START_SECONDS, ending, one_thread_each
from robossl_envs.collection.environment import ENVIRONMENT, STATE, Described
from robossl_envs.collection.recorder import Recorder
from robossl_envs.collection.settings import Settings
from robossl_envs.collection.todo import Outcome, Todo

if TYPE_CHECKING:
    from robossl.encode import FrameEncoder

GRACE_SECONDS = 1.0  # for a dead process to be seen as dead


class Slot(gymnasium.Env[dict[str, ndarray], Any]):
    """One worker's environment as the vector sees it: `reset(seed=K)` begins episode K; `info` tells how it ended."""

    def __init__(self, settings: Settings, described: Described, parts: Path, action_space: Space[Any]) -> None:
        if multiprocessing.parent_process() is not None:  # the vector also makes one in the collecting process
            start_worker()
        self._task = (settings, described, parts)
        self._recorder: Recorder | None = None
        self._playing = False
        self.action_space = action_space
        spaces: dict[str, Space[Any]] = {"frame": Box(0, 255, (described.height, described.width, 3), np.uint8)}
        dim = sum(column.width for column in described.columns if column.name in (STATE, ENVIRONMENT))
        if dim:
            spaces["state"] = Box(-np.inf, np.inf, (dim,), np.float32)
        self.observation_space = cast("Space[dict[str, ndarray]]", Dict(spaces))
        self._shown = {name: np.zeros(space.shape or (), space.dtype) for name, space in spaces.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the episode whose number is the seed."""
        assert seed is not None
        return self._shown, self._told(lambda recorder: recorder.begin(seed))

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act, where an episode goes on; it is over when `info` holds an outcome."""
        info = self._told(lambda recorder: recorder.step(action)) if self._playing else {}
        return self._shown, 0.0, bool(info), False, info

    def _told(self, act: Callable[[Recorder], int | None]) -> dict[str, Any]:
        """Do something with the recorder; empty while the episode goes on, else its outcome without the number."""
        try:
            self._recorder = self._recorder or Recorder(*self._task)
            num_frames = act(self._recorder)
        except ResourceError as error:
            outcome = {"num_frames": 0, "reason": str(error), "disk_full": True}
        except Exception as error:  # whatever a foreign environment raises costs this attempt, not the collection
            self._recorder = None
            outcome = {"num_frames": 0, "reason": f"{type(error).__name__}: {reason(error)}", "disk_full": False}
        else:
            if not num_frames:
                self._shown["frame"] = self._recorder.frame
                if "state" in self._shown:
                    self._shown["state"] = self._recorder.state
                self._playing = True
                return {}
            outcome = {"num_frames": num_frames, "reason": "", "disk_full": False}
        self._playing = False
        return outcome


class Ensemble:
    """The slots of one collection, and the learner that acts in them, on embeddings where there is an encoder."""

    def __init__(
        self,
        settings: Settings,
        described: Described,
        parts: Path,
        learner: Learner,
        action_space: Space[Any],
        *,
        workers: int,
        hang_seconds: float,
        encode: FrameEncoder | None = None,
    ) -> None:
        self._make = partial(Slot, settings, described, parts, action_space)
        self._encode = encode
        self._learner, self._num_slots, self._hang_seconds = learner, workers, hang_seconds

    def run(self, todo: Todo) -> Iterator[Outcome]:
        """As `Crew.run`."""
        while len(todo):
            numbers: list[int | None] = [None] * self._num_slots
            with one_thread_each():
                envs = AsyncVectorEnv(
                    [self._make] * self._num_slots,
                    shared_memory=True,
                    copy=False,
                    context="spawn",
                    autoreset_mode=AutoresetMode.DISABLED,
                )
            try:
                yield from self._play(envs, todo, numbers)
                envs.close()
            except (EOFError, OSError, multiprocessing.TimeoutError) as error:
                if isinstance(error, ResourceError):
                    raise
                yield from self._fallen(envs, todo, numbers)
            finally:
                _end(envs)

    def _play(self, envs: AsyncVectorEnv, todo: Todo, numbers: list[int | None]) -> Iterator[Outcome]:
        """Until nothing is left to do; `numbers` says at any time which episode each slot is at."""
        started = np.zeros(self._num_slots, np.bool_)
        while True:
            while len(todo) and None in numbers:
                fresh = _take(todo, numbers)
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
        """One action a slot; those of idle slots go nowhere."""
        shown = cast("dict[str, ndarray]", envs.observations)
        states = shown["state"][slots] if "state" in shown else np.zeros((len(slots), 0), np.float32)
        actions = [envs.single_action_space.sample()] * self._num_slots
        frames = shown["frame"][slots]
        embeddings = self._encode(frames)["pooled"] if self._encode else None
        seen = Seen(slots=slots, frames=frames, states=states, started=started[slots], embeddings=embeddings)
        for slot, action in zip(slots, self._learner(seen), strict=True):
            actions[slot] = action
        return np.stack(actions)

    def _fallen(self, envs: AsyncVectorEnv, todo: Todo, numbers: list[int | None]) -> Iterator[Outcome]:
        """Find out who crashed or hangs; the others' episodes are played again."""
        for process in envs.processes:
            process.join(GRACE_SECONDS / self._num_slots)
        codes = [process.exitcode for process in envs.processes]
        if any(code is not None for code in codes):
            reasons = ["" if code is None else f"the worker {ending(code)}" for code in codes]
        else:  # those that answered in time have their answer waiting
            hung = f"the worker hung for {self._hang_seconds:g} s"
            reasons = ["" if pipe.poll() else hung for pipe in envs.parent_pipes]
        playing = [(number, reasons[slot]) for slot, number in enumerate(numbers) if number is not None]
        for number, why in reversed(playing):
            if not why:
                todo.give_back(number)
        for number, why in playing:
            if why:
                yield Outcome(number, reason=why)


def _take(todo: Todo, numbers: list[int | None]) -> Bool[ndarray, " n"]:
    """Give idle slots an episode each; which ones got one."""
    fresh = np.zeros(len(numbers), np.bool_)
    for slot, number in enumerate(numbers):
        if number is None:
            numbers[slot] = todo.take()
            fresh[slot] = numbers[slot] is not None
    return fresh


def _outcomes(infos: dict[str, Any], numbers: list[int | None]) -> Iterator[Outcome]:
    """The episodes that ended in this step; their slots become idle."""
    for slot in np.flatnonzero(infos.get("_reason", [])):
        number = numbers[slot]
        assert number is not None
        numbers[slot] = None
        yield Outcome(
            number, int(infos["num_frames"][slot]), str(infos["reason"][slot]), bool(infos["disk_full"][slot])
        )


def _end(envs: AsyncVectorEnv) -> None:
    """Kill what is left: a process that hangs hears neither `close` nor SIGTERM."""
    for process in envs.processes:
        process.kill()
        process.join()
    envs.closed = True
