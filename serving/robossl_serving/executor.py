"""Executor: one run at a time for one encoder, of what its scheduler chooses."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl_serving.requests import Outcome, Request, Turn
from robossl_serving.scheduler import Scheduler

Run = Callable[[UInt8[ndarray, "b h w 3"], Sequence[str]], dict[str, ndarray]]

_log = logging.getLogger("robossl.serving")


class ClosedError(Exception):
    """The executor takes nothing more: its encoder is being unloaded."""


class Executor:
    """Runs requests, one turn at a time; `on_turn(num_frames, run_seconds)` is told of each."""

    def __init__(self, run: Run, scheduler: Scheduler, *, name: str, on_turn: Callable[[int, float], None]) -> None:
        self._run = run
        self._scheduler = scheduler
        self._on_turn = on_turn
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._running = False
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=f"executor-{name}", daemon=True)
        self._thread.start()

    def submit(self, request: Request, *, may_run_here: bool = False) -> None:
        """Let a request wait for its turn; its `on_done` is called when its outcome is known.

        With `may_run_here` an idle encoder runs it in the calling thread, which spares two changes of thread.

        Raises:
            ClosedError: the encoder is being unloaded.
            QueueFullError: too many wait already.
        """
        turn = None
        with self._lock:
            if self._closed:
                raise ClosedError
            replaced = self._scheduler.add(request)
            if may_run_here and not self._running and len(self._scheduler) == 1:
                turn = self._scheduler.take(time.monotonic())
                self._running = True
            else:
                self._wake.notify()
        if replaced is not None:
            _finish(replaced, "superseded")
        if turn is not None:
            self._work(turn)

    def cancel(self, request: Request) -> None:
        """Forget a request that its caller no longer wants; one that is running is run to its end."""
        with self._lock:
            waited = self._scheduler.remove(request)
        if waited:
            _finish(request, "cancelled")

    def __len__(self) -> int:
        return len(self._scheduler)

    def close(self) -> None:
        """Take nothing more, and return when all that waits has been run or shed."""
        with self._lock:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._lock:
                while self._running or not len(self._scheduler):
                    if self._closed and not self._running:
                        return
                    self._wake.wait()
                turn = self._scheduler.take(time.monotonic())
                self._running = True
            self._work(turn)

    def _work(self, turn: Turn) -> None:
        for request in turn.shed:
            _finish(request, "shed")
        started_s = time.monotonic()
        features = self._features(turn) if turn.pieces else {}
        run_s = time.monotonic() - started_s
        done: list[Request] = []
        with self._lock:
            if features:
                self._scheduler.ran(turn, run_s=run_s, now_s=started_s + run_s)
                done.extend(_hand_out(turn, features, started_s=started_s, run_s=run_s))
            elif turn.pieces:
                for piece in turn.pieces:
                    self._scheduler.remove(piece.request)
            self._running = False  # the next run does not wait for the replies of this one
            if len(self._scheduler) or self._closed:
                self._wake.notify()
        if features:
            self._on_turn(turn.num_frames, run_s)
            for request in done:
                _finish(request, "served")
        else:
            for piece in turn.pieces:
                _finish(piece.request, "failed")

    def _features(self, turn: Turn) -> dict[str, ndarray]:
        """What the encoder gives for the turn's frames; nothing where it fails."""
        names = tuple(dict.fromkeys(name for piece in turn.pieces for name in piece.request.outputs))
        frames = [piece.frames for piece in turn.pieces]
        try:
            return self._run(frames[0] if len(frames) == 1 else np.concatenate(frames), names)
        except Exception:
            _log.exception("a run failed", extra={"num_frames": turn.num_frames})
            return {}


def _hand_out(turn: Turn, features: dict[str, ndarray], *, started_s: float, run_s: float) -> Iterator[Request]:
    """Give each request its rows; yields those that have all of theirs."""
    row = 0
    for piece in turn.pieces:
        request, num = piece.request, piece.stop - piece.start
        request.parts.append({name: features[name][row : row + num] for name in request.outputs})
        request.started_s = request.started_s or started_s
        request.run_s += run_s
        request.num_done = piece.stop
        row += num
        if not request.num_left:
            yield request


def _finish(request: Request, outcome: Outcome) -> None:
    if request.outcome is None:
        request.outcome = outcome
        request.on_done()
