"""Scheduler: chooses which waiting frames run next. It gets the time as an argument, and never waits or locks.

Each camera of a robot has one slot, which holds one waiting frame. A newer frame replaces an older frame. The fair
interval is the time in which all active robots on the device can be served once. A robot is due when nearly one fair
interval has passed since it was served. Among the robots that are due, the robot with the freshest frame runs first.
But a robot that was not served for two fair intervals runs before all others. A request that cannot meet its deadline
is shed (dropped) before it runs; see `estimates.py`. Batch requests run first come, first served, while no control
request waits.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from robossl_serving.costs import Costs
from robossl_serving.estimates import TimeEstimates
from robossl_serving.requests import FrameSlice, Request, RunPlan

# Number of fair intervals without service after which a robot runs before all others.
# The fair interval is the time in which all active robots can be served once.
_GUARD = 2.0
# Number of fair intervals after which a robot is due, that is, may be served again if its frame is the freshest.
# If a robot were due earlier, robots with fresh frames would crowd out the other robots.
_DUE = 0.8
_ACTIVE_S = 1.0  # a robot counts as active this long after its last frame
# Maximum number of remembered robot names per slot (place for a waiting frame), and of camera names per robot.
# Both are limited, because clients can invent any number of names.
_NAMES = 8
_DOUBT_S = 1.0  # while nothing runs, `_pace` (run time / expected run time) halves in this time
# Weight of the last run's ratio (run time / expected run time) in `_pace`, if this ratio is above `_pace`.
# A lower ratio replaces `_pace`.
_FOLLOW = 0.1


class QueueFullError(Exception):
    """Too many requests of the same priority wait already."""


@dataclass(slots=True)
class _Robot:
    seen_s: float
    served_s: float  # time when the robot was last served; until then, time of its first request
    hw: tuple[int, int]  # height and width of the robot's last frame
    slots: dict[str, Request] = field(default_factory=dict)  # the waiting request of each camera
    camera_served_s: dict[str, float] = field(default_factory=dict)

    def next_camera(self) -> str:
        """Return the camera that was served longest ago, among the cameras with a waiting request."""
        return min(self.slots, key=lambda camera: self.camera_served_s.get(camera, 0.0))


class Scheduler:
    """Holds the waiting requests of one encoder, and chooses which of them run."""

    def __init__(self, costs: Costs, *, max_waiting: int, max_slots: int | None = None) -> None:
        """Let up to `max_waiting` batch requests and `max_slots` control requests wait (default: `max_waiting`)."""
        self._costs = costs
        self._max_waiting = max_waiting
        self._max_slots = max_waiting if max_slots is None else max_slots
        self._robots: dict[str, _Robot] = {}  # robots by name; the robot seen last is at the end
        self._num_slots = 0
        self._batch: deque[Request] = deque()
        self._runs = TimeEstimates()
        # Recent run time / expected run time, over runs of all sizes; the fair interval is multiplied by it.
        self._pace = 1.0
        # Time when the last run ended. Before the first run, it is the time when the first request arrived.
        self._ran_s: float | None = None
        self._last_hw: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self._num_slots + len(self._batch)

    @property
    def num_control(self) -> int:
        """Number of waiting control requests."""
        return self._num_slots

    def longest_unserved_s(self) -> float:
        """Return the time when the robot that has waited longest was last served."""
        return min(robot.served_s for robot in self._robots.values() if robot.slots)

    def add(self, request: Request) -> Request | None:
        """Queue a request; return the request that was replaced, or None if none was.

        Each camera has at most one waiting request. If there are two, the newer request stays in the queue, and the
        older request is returned, even if this is the added request.

        Raises:
            QueueFullError: too many requests wait.
        """
        if self._ran_s is None:
            self._ran_s = request.arrived_s
        if request.robot is None:
            if len(self._batch) >= self._max_waiting:
                raise QueueFullError
            self._batch.append(request)
            return None
        slots = self._see(request.robot, request.hw, request.arrived_s).slots
        waiting = slots.get(request.camera)
        if waiting is None and self._num_slots >= self._max_slots:
            raise QueueFullError
        if waiting is not None and waiting.captured_s > request.captured_s:  # the requests arrived out of order
            return request
        slots[request.camera] = request
        if waiting is None:
            self._num_slots += 1
        else:
            request.superseded = waiting.superseded + 1
        return waiting

    def remove(self, request: Request) -> bool:
        """Remove a waiting request; return False if it is not waiting."""
        if request.robot is None:
            if request not in self._batch:
                return False
            self._batch.remove(request)
            return True
        robot = self._robots.get(request.robot)
        if robot is None or robot.slots.get(request.camera) is not request:
            return False
        del robot.slots[request.camera]
        self._num_slots -= 1
        return True

    def drop_overdue(self, now_s: float) -> list[Request]:
        """Remove and return the requests past their deadline."""
        overdue = [request for request in self.waiting() if request.deadline_s <= now_s]
        for request in overdue:
            self.remove(request)
        return overdue

    def take(self, now_s: float, *, beside_s: float = 0.0) -> RunPlan:
        """Choose the frames that run now. Their requests leave the queue, except a batch request with frames left.

        Args:
            now_s: Current time.
            beside_s: Time that the other encoders on the device need to serve each of their active robots once.
        """
        shed = tuple(self._late(now_s))
        for request in shed:
            self.remove(request)
        slices = self._control_slices(now_s, beside_s) if self._num_slots else self._batch_slices()
        return RunPlan(tuple(slices), shed)

    def learn(self, plan: RunPlan, *, run_s: float, now_s: float) -> None:
        """Update the time estimates from a finished run."""
        first = plan.slices[0].request
        hw = first.hw
        expected_s = self._costs.of(plan.num_frames, hw)
        self._runs.learn((plan.num_frames, *hw), expected_s, run_s, now_s=now_s)
        ratio = run_s / expected_s
        self._pace = ratio if ratio < self._pace else (1 - _FOLLOW) * self._pace + _FOLLOW * ratio
        self._ran_s = now_s
        if first.robot is not None:
            self._last_hw = hw

    def estimate_s(self, num_frames: int, now_s: float, hw: tuple[int, int] | None = None) -> float:
        """Return the estimated time of a run; `hw` defaults to the size of the last control frames."""
        hw = hw or self._last_hw
        return self._runs.seconds((num_frames, *(hw or (0, 0))), self._costs.of(num_frames, hw), now_s)

    def demand_s(self, now_s: float) -> float:
        """Return the estimated time to serve every active robot once."""
        idle_s = 0.0 if self._ran_s is None else max(0.0, now_s - self._ran_s)
        active = Counter(robot.hw for robot in self._robots.values() if now_s - robot.seen_s <= _ACTIVE_S)
        each_s = 0.0
        for hw, num in active.items():
            best = self._costs.best_batch_of(hw)
            each_s += num * self._costs.of(best, hw) / best
        return each_s * self._pace * math.exp2(-idle_s / _DOUBT_S)

    def waiting(self) -> Iterator[Request]:
        """Yield all waiting requests."""
        for robot in self._robots.values():
            yield from robot.slots.values()
        yield from self._batch

    def _late(self, now_s: float) -> Iterable[Request]:
        for request in self.waiting():
            num_frames = request.num_left
            is_late = self._runs.is_late(
                (num_frames, *request.hw),
                self._costs.of(num_frames, request.hw),
                least_s=self._costs.of(num_frames),
                left_s=request.deadline_s - now_s,
                now_s=now_s,
            )
            if is_late:
                yield request

    def _control_slices(self, now_s: float, beside_s: float) -> Iterable[FrameSlice]:
        """Yield the frames of the next control request, and of later control requests worth running in its batch."""
        first, num_frames, slack_s = None, 0, float("inf")
        while self._num_slots:
            robot = self._next_robot(now_s, beside_s)
            camera = robot.next_camera()
            request = robot.slots[camera]
            num_frames += len(request.frames)
            slack_s = min(slack_s, request.deadline_s - now_s)
            if first is None:
                first = request
            elif not (
                request.hw == first.hw
                and num_frames <= self._costs.best_batch_of(first.hw)
                and self.estimate_s(num_frames, now_s, first.hw) <= slack_s
            ):
                return
            self.remove(request)
            robot.served_s = robot.camera_served_s[camera] = now_s
            yield FrameSlice(request, 0, len(request.frames))

    def _next_robot(self, now_s: float, beside_s: float) -> _Robot:
        waiting = [robot for robot in self._robots.values() if robot.slots]
        if len(waiting) == 1:
            return waiting[0]
        fair_s = self.demand_s(now_s) + beside_s
        longest = min(waiting, key=lambda robot: robot.served_s)
        if now_s - longest.served_s > _GUARD * fair_s:
            return longest
        due = [robot for robot in waiting if now_s - robot.served_s >= _DUE * fair_s]
        return max(due or waiting, key=lambda robot: robot.slots[robot.next_camera()].captured_s)

    def _batch_slices(self) -> Iterable[FrameSlice]:
        """Yield slices of the first batch requests in the queue, with as many frames as are worth running together."""
        room = self._costs.best_batch_of(self._batch[0].hw) if self._batch else 0
        while self._batch and room:
            request = self._batch[0]
            stop = min(len(request.frames), request.num_done + room)
            room -= stop - request.num_done
            yield FrameSlice(request, request.num_done, stop)
            if stop < len(request.frames):
                return
            self._batch.popleft()
            if self._batch and self._batch[0].hw != request.hw:
                return

    def _see(self, name: str, hw: tuple[int, int], now_s: float) -> _Robot:
        robot = self._robots.pop(name, None) or _Robot(seen_s=now_s, served_s=now_s, hw=hw)
        robot.seen_s, robot.hw = now_s, hw
        self._robots[name] = robot
        if len(robot.camera_served_s) > _NAMES:
            robot.camera_served_s.clear()
        if len(self._robots) > _NAMES * self._max_slots:
            oldest = next((name for name, each in self._robots.items() if not each.slots), name)
            del self._robots[oldest]
        return robot
