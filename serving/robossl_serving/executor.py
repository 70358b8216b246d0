"""Executor: runs one encoder. Its scheduler chooses which requests run, and its device chooses when they run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy import ndarray

from robossl_serving.device import Device
from robossl_serving.requests import Outcome, Priority, Request, RunPlan
from robossl_serving.scheduler import Scheduler

# Takes frames (b, h, w, 3), names of outputs and, only if requests have one, a state (b, v); returns outputs by name.
RunFn = Callable[..., dict[str, ndarray]]

_log = logging.getLogger("robossl.serving")


class ClosedError(Exception):
    """The encoder is being unloaded; the executor takes no more requests."""


class Executor:
    """Runs one plan (a batch of frames) at a time, and calls `on_run(num_frames, run_seconds)` after each run."""

    def __init__(
        self,
        run: RunFn,
        scheduler: Scheduler,
        *,
        name: str,
        on_run: Callable[[int, float], None],
        device: Device | None = None,
    ) -> None:
        """Start the thread that runs waiting requests; without `device`, requests never wait for other encoders."""
        self._run = run
        self._name = name
        self._scheduler = scheduler
        self._on_run = on_run
        self._device = device or Device()
        self._lock = self._device.lock
        self._wake = threading.Condition(self._lock)
        self._closed = False
        self.running: Priority | None = None
        with self._lock:
            self._device.join(self)
        self._thread = threading.Thread(target=self._loop, name=f"executor-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> Priority | None:
        """The highest priority of the waiting requests; None if no request waits."""
        if self._scheduler.num_control:
            return "control"
        return "batch" if len(self._scheduler) else None

    @property
    def longest_unserved_s(self) -> float:
        """The time (time.monotonic()) when the robot that has waited longest was last served."""
        return self._scheduler.longest_unserved_s()

    def demand_s(self, now_s: float) -> float:
        """Return the seconds that this encoder needs to serve each of its active robots once."""
        return self._scheduler.demand_s(now_s)

    def wake(self) -> None:
        """Wake this encoder's thread, so that it checks whether it may run; call this with the device's lock held."""
        self._wake.notify()

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Remove and return the requests past their deadline; call this with the device's lock held."""
        overdue = self._scheduler.drop_overdue(now_s)
        if overdue and self._closed:
            self._wake.notify()
        return overdue

    def submit(self, request: Request, *, may_run_here: bool = False) -> None:
        """Queue a request; its `on_done` is called when its outcome is known.

        With `may_run_here`, an idle encoder runs the request in the calling thread, which saves two thread switches.

        Raises:
            ClosedError: the encoder is being unloaded.
            QueueFullError: too many requests wait.
        """
        plan = None
        with self._lock:
            if self._closed:
                raise ClosedError
            replaced = self._scheduler.add(request)
            if may_run_here and len(self._scheduler) == 1 and self._device.next() is self:
                plan = self._begin()
            else:
                self._device.wake()
        if replaced is not None:
            _finish(replaced, "superseded")
        if plan is not None:
            self._work(plan)

    def cancel(self, request: Request) -> None:
        """Remove a waiting request that its client gave up; a request that is already running is not stopped."""
        with self._lock:
            waited = self._scheduler.remove(request)
            # Batch requests of another encoder may have waited for the cancelled request, so wake that encoder.
            self._device.wake()
            if self._closed:
                self._wake.notify()
        if waited:
            _finish(request, "cancelled")

    def __len__(self) -> int:
        return len(self._scheduler)

    def close(self) -> None:
        """Take no more requests, and return when all waiting requests have run or were dropped."""
        with self._lock:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _loop(self) -> None:
        while True:
            with self._lock:
                while self._device.next() is not self:
                    if self._closed and self.running is None and not len(self._scheduler):
                        self._device.leave(self)
                        return
                    self._wake.wait()
                plan = self._begin()
            self._work(plan)

    def _begin(self) -> RunPlan:
        now_s = time.monotonic()
        plan = self._scheduler.take(now_s, beside_s=self._device.beside_s(self, now_s))
        is_control = any(each.request.robot is not None for each in plan.slices)
        self.running = "control" if is_control else "batch"
        self._device.begin(self)
        return replace(plan, shed=(*plan.shed, *self._device.drop_overdue(now_s)))

    def _work(self, plan: RunPlan) -> None:
        for request in plan.shed:
            _finish(request, "shed")
        started_s = time.monotonic()
        features = self._features(plan) if plan.slices else {}
        run_s = time.monotonic() - started_s
        done: list[Request] = []
        failed: list[Request] = []
        with self._lock:
            if features:
                self._scheduler.learn(plan, run_s=run_s, now_s=started_s + run_s)
                done.extend(_hand_out(plan, features, started_s=started_s, run_s=run_s))
            elif plan.slices:
                failed.extend(self._give_up(plan))
            self.running = None
            # Wake the next encoder before the replies are sent, so that its run starts at once.
            self._device.wake()
            if self._closed:
                self._wake.notify()
        if features:
            self._on_run(plan.num_frames, run_s)
        for request in done:
            _finish(request, "served")
        for request in failed:
            _finish(request, "failed")

    def _give_up(self, plan: RunPlan) -> Iterator[Request]:
        """Remove the requests of a failed plan from the queue; yield those that were not cancelled meanwhile."""
        for each in plan.slices:
            # A request leaves the queue when its last frames start to run, and cannot be cancelled after that.
            was_last = each.stop == len(each.request.frames)
            if self._scheduler.remove(each.request) or was_last:
                yield each.request

    def _features(self, plan: RunPlan) -> dict[str, ndarray]:
        """Run the encoder on the plan's frames; return {} if it fails."""
        names = tuple(dict.fromkeys(name for each in plan.slices for name in each.request.outputs))
        frames = _joined([each.frames for each in plan.slices])
        states = [each.state for each in plan.slices if each.state is not None]
        try:
            return self._run(frames, names, _joined(states)) if states else self._run(frames, names)
        except Exception:
            about = {"encoder": self._name, "num_frames": plan.num_frames}
            _log.exception("an encoder run failed; its requests are answered with INTERNAL", extra=about)
            return {}


def _joined(parts: Sequence[ndarray]) -> ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _hand_out(plan: RunPlan, features: dict[str, ndarray], *, started_s: float, run_s: float) -> Iterator[Request]:
    """Give each request its rows of the features; yield the requests whose frames have all run."""
    row = 0
    for each in plan.slices:
        request, num = each.request, each.stop - each.start
        request.parts.append({name: features[name][row : row + num] for name in request.outputs})
        request.started_s = request.started_s or started_s
        request.run_s += run_s
        request.num_done = each.stop
        row += num
        if not request.num_left:
            yield request


def _finish(request: Request, outcome: Outcome) -> None:
    if request.outcome is None:
        request.outcome = outcome
        request.on_done()
