"""Worker processes that play whole episodes; a process that crashes or hangs is replaced.

Each worker plays an episode at its own pace. If all workers took each step together, they would wait for the slowest
worker at every step.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, cast

from robossl.data.worker import start_worker
from robossl.errors import ResourceError, reason
from robossl_envs.agents import resolve_agent
from robossl_envs.agents.agent import Actor
from robossl_envs.collection.environment import EnvDescription
from robossl_envs.collection.recorder import Recorder
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.collection.todo import AttemptOutcome, EpisodeQueue

# Environment variables that limit threads; LP_NUM_THREADS is for llvmpipe, Mesa's software renderer.
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")
POLL_SECONDS = 0.5
START_SECONDS = 60.0  # minimum time limit of the first step, because imports and some environments are slow


@contextmanager
def limit_threads() -> Iterator[None]:
    """Limit each process that starts inside the `with` block to one thread.

    The limits are environment variables. They are set before a process starts, because Numpy and Mesa read them only
    once, when they are loaded.
    """
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(slots=True)
class _Worker:
    """A worker process, with the number of its current episode and the time of its last progress."""

    process: SpawnProcess
    connection: Connection
    beat: Synchronized[int]  # number of steps taken, written by the worker process
    number: int | None = None
    last_beat: int = 0
    alive_at: float = 0.0

    def assign(self, number: int) -> None:
        self.number, self.alive_at = number, time.monotonic()
        # If the process died while starting, the pipe is broken, and `_outcome` reports the failure later.
        with suppress(BrokenPipeError):
            self.connection.send(number)

    def hangs(self, seconds: float) -> bool:
        if self.beat.value != self.last_beat:
            self.last_beat, self.alive_at = self.beat.value, time.monotonic()
        patience_seconds = seconds if self.last_beat else max(seconds, START_SECONDS)
        return self.number is not None and time.monotonic() - self.alive_at > patience_seconds

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


class ActorPool:
    """Plays the episodes of a collection in worker processes; each episode gets a new actor (agent for one episode)."""

    def __init__(
        self,
        settings: CollectionSettings,
        description: EnvDescription,
        parts: Path,
        *,
        workers: int,
        hang_seconds: float,
    ) -> None:
        self._task = (settings, description, parts)
        self._num_workers, self._hang_seconds = workers, hang_seconds
        self._context = get_context("spawn")

    def run(self, queue: EpisodeQueue) -> Iterator[AttemptOutcome]:
        """Play all episodes of the queue; yield the outcome of each attempt when the attempt ends.

        The caller must pass the outcome to `queue.settle` before it asks for the next outcome.
        """
        with limit_threads():
            workers = [self._start() for _ in range(min(self._num_workers, len(queue)))]
            try:
                while True:
                    for worker in workers:
                        number = queue.take() if worker.number is None else None
                        if number is not None:
                            worker.assign(number)
                    if all(worker.number is None for worker in workers):
                        return
                    wait([worker.connection for worker in workers if worker.number is not None], timeout=POLL_SECONDS)
                    for place, worker in enumerate(workers):
                        outcome = self._outcome(worker)
                        if outcome is None:
                            continue
                        worker.number = None
                        if outcome.reason and not worker.process.is_alive():
                            worker.end()
                            workers[place] = self._start()
                        yield outcome
            finally:
                for worker in workers:
                    worker.end()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        beat = cast("Synchronized[int]", self._context.Value("Q", 0, lock=False))
        process = self._context.Process(target=_work, args=(*self._task, theirs, beat), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours, beat)

    def _outcome(self, worker: _Worker) -> AttemptOutcome | None:
        """Return the outcome of a worker's attempt; None while the worker plays or is idle. Kill a hanging worker."""
        if worker.number is None:
            return None
        if worker.connection.poll():
            try:
                outcome: AttemptOutcome = worker.connection.recv()
                return outcome
            except (EOFError, OSError):
                worker.process.join()
                return AttemptOutcome(worker.number, reason=f"the worker {describe_exit(worker.process.exitcode)}")
        if worker.hangs(self._hang_seconds):
            worker.process.kill()
            worker.process.join()
            return AttemptOutcome(worker.number, reason=f"the worker hung for {self._hang_seconds:g} s")
        return None


def describe_exit(exitcode: int | None) -> str:
    """Say in words how a process ended."""
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended by itself with exit code {exitcode}"


def _work(
    settings: CollectionSettings, description: EnvDescription, parts: Path, connection: Connection, beat: Any
) -> None:
    """Run in a worker process: play each episode whose number arrives, and send its outcome back."""
    start_worker()
    actor = cast("type[Actor]", resolve_agent(settings.agent))
    recorder: Recorder | None = None
    while True:
        number: int = connection.recv()
        try:
            recorder = recorder or Recorder(settings, description, parts)
            recorder.begin(number)
            act = actor(recorder.env, recorder.rng, description.max_steps)
            num_frames = 0
            while not num_frames:
                num_frames = recorder.step(act())
                beat.value += 1
            outcome = AttemptOutcome(number, num_frames)
        except ResourceError as error:
            outcome = AttemptOutcome(number, reason=str(error), disk_full=True)
        # An error in someone else's environment ends this attempt, but not the collection.
        except Exception as error:
            recorder = None
            outcome = AttemptOutcome(number, reason=f"{type(error).__name__}: {reason(error)}")
        connection.send(outcome)
