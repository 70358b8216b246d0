"""Worker processes that play whole episodes by themselves, and are watched: what crashes or hangs is replaced.

Whole episodes, because in lock-step every worker waits for the slowest at every step.
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
from robossl_envs.collection.environment import Described
from robossl_envs.collection.recorder import Recorder
from robossl_envs.collection.settings import Settings
from robossl_envs.collection.todo import Outcome, Todo

THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")  # LP: Mesa's llvmpipe
POLL_SECONDS = 0.5
START_SECONDS = 60.0  # at least, before the first step: imports, and environments that are slow to make


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started inside the block use one thread: the variables are read when numpy and Mesa load."""
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
    """A process, what it plays, and when it last gave a sign of life."""

    process: SpawnProcess
    connection: Connection
    beat: Synchronized[int]  # steps taken, written by the process
    number: int | None = None
    last_beat: int = 0
    alive_at: float = 0.0

    def assign(self, number: int) -> None:
        self.number, self.alive_at = number, time.monotonic()
        with suppress(BrokenPipeError):  # it died as it started, which `_outcome` sees
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


class Crew:
    """Workers of one collection."""

    def __init__(
        self, settings: Settings, described: Described, parts: Path, *, workers: int, hang_seconds: float
    ) -> None:
        self._task = (settings, described, parts)
        self._num_workers, self._hang_seconds = workers, hang_seconds
        self._context = get_context("spawn")

    def run(self, todo: Todo) -> Iterator[Outcome]:
        """Play what is to do; yields every attempt as it ends, which the caller settles before asking for the next."""
        with one_thread_each():
            workers = [self._start() for _ in range(min(self._num_workers, len(todo)))]
            try:
                while True:
                    for worker in workers:
                        number = todo.take() if worker.number is None else None
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

    def _outcome(self, worker: _Worker) -> Outcome | None:
        """What became of a worker's attempt; None while it goes on. After a crash or a hang its process is dead."""
        if worker.number is None:
            return None
        if worker.connection.poll():
            try:
                outcome: Outcome = worker.connection.recv()
                return outcome
            except (EOFError, OSError):
                worker.process.join()
                return Outcome(worker.number, reason=f"the worker {ending(worker.process.exitcode)}")
        if worker.hangs(self._hang_seconds):
            worker.process.kill()
            worker.process.join()
            return Outcome(worker.number, reason=f"the worker hung for {self._hang_seconds:g} s")
        return None


def ending(exitcode: int | None) -> str:
    """How a process ended, in words."""
    if exitcode is not None and exitcode < 0:
        return f"was killed by {signal.Signals(-exitcode).name}"
    return f"ended by itself with exit code {exitcode}"


def _work(settings: Settings, described: Described, parts: Path, connection: Connection, beat: Any) -> None:
    """A worker process: plays the episodes it is told, until the connection closes."""
    start_worker()
    actor = cast("type[Actor]", resolve_agent(settings.agent))
    recorder: Recorder | None = None
    while True:
        number: int = connection.recv()
        try:
            recorder = recorder or Recorder(settings, described, parts)
            recorder.begin(number)
            act = actor(recorder.env, recorder.rng, described.max_steps)
            num_frames = 0
            while not num_frames:
                num_frames = recorder.step(act())
                beat.value += 1
            outcome = Outcome(number, num_frames)
        except ResourceError as error:
            outcome = Outcome(number, reason=str(error), disk_full=True)
        except Exception as error:  # whatever a foreign environment raises costs this attempt, not the collection
            recorder = None
            outcome = Outcome(number, reason=f"{type(error).__name__}: {reason(error)}")
        connection.send(outcome)
