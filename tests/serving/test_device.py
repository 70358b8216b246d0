"""One device for all encoders: robots' frames of any of them go before batch requests of every one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from robossl_client.client import EncoderClient
from robossl_serving.costs import Costs
from robossl_serving.device import Device
from robossl_serving.executor import Executor
from robossl_serving.requests import Priority, Request
from robossl_serving.scheduler import Scheduler
from robossl_serving.server import ServerSettings
from serving_kit import FRAMES, build_tiny, eventually, serving

RUN_S = 1 / 60


def request(robot: str | None, *, at_s: float | None = None, allowed_s: float = 60.0, num_frames: int = 1) -> Request:
    at_s = time.monotonic() if at_s is None else at_s
    frames = np.zeros((num_frames, 2, 2, 3), np.uint8)
    return Request(frames, ("pooled",), robot, "", at_s, at_s, at_s + allowed_s, lambda: None)


class Encoders:
    """Two encoders on one device, whose runs begin and last until they are let go."""

    def __init__(self, *, places: int = 1) -> None:
        self.device = Device(places=places)
        self.began: list[str] = []
        self._let_go = {name: threading.Semaphore(0) for name in "ab"}
        self.executors = {name: self._executor(name) for name in "ab"}

    def _executor(self, name: str) -> Executor:
        def run(frames: np.ndarray, outputs: object) -> dict[str, np.ndarray]:
            kind = self.executors[name].running
            self.began.append(f"{name} {kind}")
            assert self._let_go[name].acquire(timeout=60)
            return {"pooled": np.zeros((len(frames), 1))}

        scheduler = Scheduler(Costs({1: RUN_S}), max_waiting=8)
        return Executor(run, scheduler, name=name, on_run=lambda *_: None, device=self.device)

    def ask(self, name: str, robot: str | None, *, num_frames: int = 1) -> Request:
        asked = request(robot, num_frames=num_frames)
        self.executors[name].submit(asked)
        return asked

    def let_go(self, name: str, times: int = 1) -> None:
        self._let_go[name].release(times)

    def wait_for(self, *began: str) -> None:
        until_s = time.monotonic() + 60
        while self.began != list(began):
            assert time.monotonic() < until_s, f"{self.began} began, not {began}"
            time.sleep(0.002)


@contextmanager
def encoders(*, places: int = 1) -> Iterator[Encoders]:
    both = Encoders(places=places)
    try:
        yield both
    finally:
        for name, executor in both.executors.items():
            both.let_go(name, 1000)
            executor.close()


def test_a_robots_frame_goes_before_the_batch_requests_of_another_encoder() -> None:
    with encoders() as both:
        both.ask("b", None, num_frames=3)
        both.wait_for("b batch")
        both.ask("b", None)
        both.ask("a", None)
        both.ask("a", "arm")
        both.let_go("b")
        both.wait_for("b batch", "a control")
        both.ask("b", "leg")
        both.let_go("a")
        both.wait_for("b batch", "a control", "b control")
        both.let_go("b")
        both.wait_for("b batch", "a control", "b control", "a batch")


def test_batch_requests_of_two_encoders_take_turns() -> None:
    with encoders() as both:
        for name in "aabb":
            both.ask(name, None, num_frames=2)
        for name in "ab":
            both.let_go(name, 4)
        eventually(lambda: len(both.began) >= 8)
        assert both.began == ["a batch", "b batch"] * 4


def test_a_frame_that_is_cancelled_lets_others_batch_requests_go_on() -> None:
    with encoders(places=2) as both:
        both.ask("a", "arm")
        both.wait_for("a control")
        waiting = both.ask("a", "leg")
        both.ask("b", None)
        both.executors["a"].cancel(waiting)
        both.let_go("a")
        both.wait_for("a control", "b batch")


def test_with_more_places_robots_frames_run_together_and_batch_requests_do_not_begin_beside_them() -> None:
    with encoders(places=2) as both:
        both.ask("a", "arm")
        both.wait_for("a control")
        both.ask("b", None)
        both.ask("b", "arm")
        both.wait_for("a control", "b control")
        both.let_go("b")
        eventually(lambda: not both.executors["b"].running)
        assert both.began == ["a control", "b control"]
        both.let_go("a")
        both.wait_for("a control", "b control", "b batch")
        both.ask("a", "arm")
        both.wait_for("a control", "b control", "b batch", "a control")


@pytest.mark.parametrize("is_unloaded", [False, True])
def test_a_batch_request_whose_turn_does_not_come_is_told_at_its_deadline(is_unloaded: bool) -> None:
    with encoders() as both:
        both.ask("a", "arm")
        both.wait_for("a control")
        overdue = request(None, allowed_s=0.01)
        both.executors["b"].submit(overdue)
        both.ask("a", "leg")
        time.sleep(0.02)
        closing = threading.Thread(target=both.executors["b"].close)
        if is_unloaded:
            closing.start()
        both.let_go("a")
        both.wait_for("a control", "a control")
        eventually(lambda: overdue.outcome is not None)  # though robots of another encoder hold the device
        assert overdue.outcome == "shed"
        if is_unloaded:
            closing.join(timeout=60)
            assert not closing.is_alive()


def test_an_unloaded_encoder_finishes_what_waits_and_is_forgotten() -> None:
    with encoders() as both:
        both.ask("a", None, num_frames=2)
        both.ask("b", "arm")
        both.let_go("a", 2)
        both.let_go("b")
        for name in "ab":
            both.executors[name].close()
        assert sorted(both.began) == ["a batch", "a batch", "b control"]
        assert both.device._members == []


def test_an_unloaded_encoder_whose_last_request_is_cancelled_is_forgotten() -> None:
    with encoders() as both:
        both.ask("a", "arm")
        both.wait_for("a control")
        waiting = both.ask("b", None)
        closing = threading.Thread(target=both.executors["b"].close)
        closing.start()
        eventually(lambda: both.executors["b"]._closed)
        both.executors["b"].cancel(waiting)
        closing.join(60)
        assert not closing.is_alive()
        assert waiting.outcome == "cancelled"


@dataclass(eq=False)
class Simulated:
    """An encoder in simulated time."""

    robots: list[str]
    cost_s: float
    served: dict[str, int] = field(default_factory=dict)
    running: Priority | None = None

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(Costs({1: self.cost_s}), max_waiting=32)

    @property
    def waiting(self) -> Priority | None:
        return "control" if self.scheduler.num_control else None

    @property
    def longest_unserved_s(self) -> float:
        return self.scheduler.longest_unserved_s()

    def demand_s(self, now_s: float) -> float:
        return self.scheduler.demand_s(now_s)

    def wake(self) -> None:
        """Nothing waits in simulated time."""


@pytest.mark.parametrize("counts", [(8, 1), (4, 4), (1, 12)])
@pytest.mark.parametrize("costs_s", [(RUN_S, RUN_S), (RUN_S, RUN_S / 4)])
def test_robots_of_two_encoders_are_served_alike(counts: tuple[int, int], costs_s: tuple[float, float]) -> None:
    """At 30 Hz each, several times what the device can serve."""
    device = Device()
    sims = [
        Simulated([f"{which} {robot}" for robot in range(num)], cost_s)
        for which, (num, cost_s) in enumerate(zip(counts, costs_s, strict=True))
    ]
    for sim in sims:
        device.join(sim)
    num = sum(counts)
    arrivals = [
        (frame / 30 + index / (30.7 * num), sim, robot)
        for index, (sim, robot) in enumerate((sim, robot) for sim in sims for robot in sim.robots)
        for frame in range(600)
    ]
    arrivals.sort(key=lambda each: each[0])
    now_s, ages_s = 0.0, []
    while arrivals:
        while arrivals and arrivals[0][0] <= now_s:
            at_s, sim, robot = arrivals.pop(0)
            sim.scheduler.add(request(robot, at_s=at_s, allowed_s=0.1))
        sim = device.next()
        if sim is None:
            now_s = arrivals[0][0] if arrivals else now_s
            continue
        plan = sim.scheduler.take(now_s, beside_s=device.beside_s(sim, now_s))
        device.begin(sim)
        if plan.slices:
            now_s += sim.cost_s
            sim.scheduler.learn(plan, run_s=sim.cost_s, now_s=now_s)
            for each in plan.slices:
                ages_s.append(now_s - each.request.captured_s)
                sim.served[each.request.robot] = sim.served.get(each.request.robot, 0) + 1
    served = np.array([sim.served.get(robot, 0) for sim in sims for robot in sim.robots], float)
    assert served.sum() ** 2 / (num * (served**2).sum()) >= 0.95
    assert np.percentile(ages_s, 99) <= 1 / 30 + 2.2 * RUN_S


def test_no_batch_run_begins_while_a_camera_of_another_model_waits_or_runs(tmp_path: Path) -> None:
    for name in ("robots", "batch"):
        build_tiny(tmp_path, version=1, name=name, layers=4)
    beside: list[str] = []
    with serving(tmp_path, ServerSettings(port=0)) as server, ExitStack() as stack:
        target = f"127.0.0.1:{server.port}"
        executors = {model.card.name: model.executor for model in server.repository.models()}

        def watch(name: str, run: Callable[..., object]) -> Callable[..., object]:
            def watched(*args: object) -> object:
                executor, other = executors[name], executors["robots" if name == "batch" else "batch"]
                if executor.running == "batch" and other.running == "control":
                    beside.append(name)
                return run(*args)

            return watched

        for name, executor in executors.items():
            executor._run = watch(name, executor._run)
        stop = threading.Event()
        num_batch = 0

        def ask() -> None:
            nonlocal num_batch
            with EncoderClient(target, model="batch") as client:
                while not stop.is_set():
                    client.encode(FRAMES, deadline_ms=60_000)
                    num_batch += 1

        client = stack.enter_context(EncoderClient(target, model="robots", robot="arm", deadline_ms=30_000))
        streams = [stack.enter_context(client.latest(camera=str(number))) for number in range(3)]
        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for _ in range(50):
                for stream in streams:
                    stream.send(FRAMES[:1])
                for stream in streams:
                    assert stream.take(wait_ms=30_000) is not None
        finally:
            stop.set()
            thread.join()
    assert not beside
    assert num_batch >= 1
