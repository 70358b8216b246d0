"""The scheduler in simulated time: what goes first, what is shed, and that no robot is forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from robossl_serving.costs import Costs, measure_costs
from robossl_serving.requests import Request
from robossl_serving.scheduler import QueueFullError, Scheduler

RUN_S = 1 / 60
FLAT = Costs({1: RUN_S, 2: 2 * RUN_S, 4: 4 * RUN_S})  # a CPU
TOGETHER = Costs({1: 0.010, 2: 0.011, 4: 0.013, 8: 0.016})  # a GPU: eight cost little more than one
CHEAP = Costs({1: 0.010, 4: 0.016, 8: 0.080})  # a GPU


def request(
    robot: str | None = "a",
    *,
    camera: str = "",
    at_s: float = 0.0,
    age_s: float = 0.0,
    allowed_s: float = 10.0,
    num_frames: int = 1,
    side: int = 2,
) -> Request:
    frames = np.zeros((num_frames, side, side, 3), np.uint8)
    return Request(frames, ("pooled",), robot, camera, at_s - age_s, at_s, at_s + allowed_s, lambda: None)


def run(scheduler: Scheduler, now_s: float) -> list[Request]:
    turn = scheduler.take(now_s)
    if turn.pieces:
        scheduler.ran(turn, run_s=RUN_S * turn.num_frames, now_s=now_s + RUN_S)
    return [piece.request for piece in turn.pieces]


def test_a_newer_frame_takes_the_slot_of_an_older_one() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    first, second, third = (request(at_s=at_s) for at_s in (0.0, 0.01, 0.02))
    other = request(camera="wrist", at_s=0.0)
    assert [scheduler.add(each) for each in (first, other, second, third)] == [None, None, first, second]
    assert third.superseded == 2
    assert len(scheduler) == 2
    assert {id(each) for _ in range(2) for each in run(scheduler, 0.02)} == {id(third), id(other)}


def test_a_frame_that_was_overtaken_on_the_way_does_not_replace_the_newer() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    newer, older = request(at_s=0.010, age_s=0.001), request(at_s=0.011, age_s=0.030)
    scheduler.add(newer)
    assert scheduler.add(older) is older
    assert run(scheduler, 0.02) == [newer]


def test_the_freshest_goes_first() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    old, fresh = request("a", at_s=0.0, age_s=0.02), request("b", at_s=0.001)
    scheduler.add(old)
    scheduler.add(fresh)
    assert [run(scheduler, 0.01), run(scheduler, 0.02), run(scheduler, 0.03)] == [[fresh], [old], []]


def test_what_cannot_be_ready_in_time_is_shed_and_not_run() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    late, able = request("a", allowed_s=RUN_S * 0.9), request("b", allowed_s=RUN_S * 1.1)
    scheduler.add(late)
    scheduler.add(able)
    turn = scheduler.take(0.0)
    assert turn.shed == (late,)
    assert [piece.request for piece in turn.pieces] == [able]


def test_one_slow_spell_does_not_shed_everything_for_ever() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    scheduler.add(request(at_s=0.0))
    turn = scheduler.take(0.0)
    for _ in range(50):
        scheduler.ran(turn, run_s=10 * RUN_S, now_s=1.0)
    assert scheduler.estimate_s(1, 1.0) > 5 * RUN_S
    scheduler.add(request(at_s=1.0, allowed_s=3 * RUN_S))
    assert scheduler.take(1.0).shed
    scheduler.add(request(at_s=4.0, allowed_s=3 * RUN_S))
    assert scheduler.take(4.0).pieces


def test_a_slow_measurement_at_load_does_not_shed_everything_for_ever() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    for at_s in (0.0, 1.0):
        scheduler.add(request(at_s=at_s, allowed_s=RUN_S / 8))
        assert scheduler.take(at_s).shed
    scheduler.add(request(at_s=5.0, allowed_s=RUN_S / 8))
    assert scheduler.take(5.0).pieces


def test_the_estimate_follows_a_faster_machine_at_once() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    scheduler.add(request())
    scheduler.ran(scheduler.take(0.0), run_s=RUN_S / 4, now_s=0.0)
    assert scheduler.estimate_s(2, 0.0) == pytest.approx(RUN_S / 2)


def test_queues_are_bounded_by_class() -> None:
    scheduler = Scheduler(FLAT, max_waiting=2)
    for name in ("a", "b"):
        scheduler.add(request(name))
        scheduler.add(request(None))
    for name in ("c", None):
        with pytest.raises(QueueFullError):
            scheduler.add(request(name))
    assert scheduler.add(request("a", at_s=1.0)) is not None, "a newer frame needs no more room"


def test_batch_requests_wait_for_control_requests_and_are_run_in_pieces() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    first, second = request(None, num_frames=3), request(None)
    scheduler.add(first)
    scheduler.add(second)
    seen = []
    for step in range(5):
        if step == 1:
            scheduler.add(request("a", at_s=0.1))
        turn = scheduler.take(0.1)
        seen += [(piece.request.robot, piece.start, piece.stop) for piece in turn.pieces]
        for piece in turn.pieces:
            piece.request.num_done = piece.stop
    assert seen == [(None, 0, 1), ("a", 0, 1), (None, 1, 2), (None, 2, 3), (None, 0, 1)]
    assert len(scheduler) == 0


def test_frames_run_together_where_that_pays_and_only_those_of_one_size() -> None:
    scheduler = Scheduler(CHEAP, max_waiting=8)
    for name in "abcde":
        scheduler.add(request(name))
    scheduler.add(request("f", side=4))
    assert [scheduler.take(0.0).num_frames for _ in range(3)] == [4, 1, 1]
    for num_frames in (3, 3, 1):
        scheduler.add(request(None, num_frames=num_frames))
    assert scheduler.take(0.0).num_frames == 4


def test_a_tight_deadline_is_not_lost_to_a_larger_batch() -> None:
    scheduler = Scheduler(CHEAP, max_waiting=8)
    for name, allowed_s in (("a", 0.0101), ("b", 1.0), ("c", 1.0)):
        scheduler.add(request(name, at_s=0.0, age_s=0.0 if name == "a" else 0.001, allowed_s=allowed_s))
    turn = scheduler.take(0.0)
    assert [piece.request.robot for piece in turn.pieces] == ["a"]


def test_a_removed_request_is_not_run() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    control, batch = request("a"), request(None)
    for each in (control, batch):
        scheduler.add(each)
        assert scheduler.remove(each)
        assert not scheduler.remove(each)
    assert len(scheduler) == 0
    assert scheduler.take(0.0).pieces == ()


def test_names_of_callers_do_not_fill_the_memory() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    for number in range(1000):
        scheduler.add(request(f"robot {number}", camera=f"camera {number}", at_s=number))
        assert run(scheduler, number + 0.5)
        scheduler.add(request("one", camera=f"camera {number}", at_s=number))
        assert run(scheduler, number + 0.5)
    assert len(scheduler._robots) <= 40
    assert all(len(robot.camera_served_s) <= 10 for robot in scheduler._robots.values())


@dataclass(frozen=True)
class Simulated:
    """What robots met with over some seconds at four times what can be served."""

    served: dict[str, int]
    ages_s: list[float]
    busy: float  # part of the time that was spent on runs

    @property
    def jain(self) -> float:
        """Jain's index: 1 where all are served alike, 1/n where one takes all."""
        counts = np.array(list(self.served.values()), float)
        return float(counts.sum() ** 2 / (len(counts) * (counts**2).sum()))


def simulate(
    arrival: Callable[[int, int], float],
    *,
    num_robots: int = 8,
    seconds: float = 20.0,
    costs: Costs = FLAT,
    measured: Costs | None = None,
) -> Simulated:
    """Robots at 30 Hz; `arrival(robot, frame)` is when a frame comes, `measured` what the scheduler takes for costs."""
    scheduler = Scheduler(measured or costs, max_waiting=num_robots)
    arrivals = sorted(
        (arrival(robot, frame), robot) for robot in range(num_robots) for frame in range(int(seconds * 30))
    )
    served, ages_s = {str(robot): 0 for robot in range(num_robots)}, []
    now_s, busy_s = arrivals[0][0], 0.0
    while arrivals:
        while arrivals and arrivals[0][0] <= now_s:
            at_s, robot = arrivals.pop(0)
            scheduler.add(request(str(robot), at_s=at_s, allowed_s=0.1))
        turn = scheduler.take(now_s)
        if not turn.pieces:
            now_s = arrivals[0][0] if arrivals else now_s
            continue
        run_s = costs.of(turn.num_frames)
        now_s += run_s
        busy_s += run_s
        scheduler.ran(turn, run_s=run_s, now_s=now_s)
        for each in (piece.request for piece in turn.pieces):
            served[str(each.robot)] += 1
            ages_s.append(now_s - each.captured_s)
    return Simulated(served, ages_s, busy_s / now_s)


RNG = np.random.default_rng(0)
PHASES = RNG.uniform(0, 1 / 30, 8)
CLUSTERED = np.array([0.0, 0.001, 0.002, 0.003, 0.004, 0.005, 0.017, 0.018])
JITTER = RNG.normal(0, 0.004, (8, 600))


@pytest.mark.parametrize(
    "arrival",
    [
        lambda robot, frame: frame / 30 + robot * 1e-4,
        lambda robot, frame: frame / 30 + PHASES[robot],
        lambda robot, frame: frame / 30 + CLUSTERED[robot],
        lambda robot, frame: frame / 30 + PHASES[robot] + JITTER[robot, frame],
        lambda robot, frame: frame / 29.7 + CLUSTERED[robot],
    ],
    ids=["phase-locked", "spread", "clustered", "jittered", "drifting"],
)
def test_at_four_times_the_capacity_frames_are_fresh_and_robots_served_alike(
    arrival: Callable[[int, int], float],
) -> None:
    got = simulate(arrival)
    assert np.percentile(got.ages_s, 99) <= 1 / 30 + 1.2 * RUN_S
    assert got.jain >= 0.95
    assert got.busy >= 0.95


@pytest.mark.parametrize("num_robots", [17, 33, 70])
@pytest.mark.parametrize("apart_s", [1e-4, 1 / 30 / 7.3])
def test_shares_are_fair_where_frames_are_run_together(num_robots: int, apart_s: float) -> None:
    got = simulate(lambda robot, frame: frame / 30 + robot * apart_s, costs=TOGETHER, num_robots=num_robots)
    assert np.percentile(got.ages_s, 99) <= 1 / 30 + 1.2 * TOGETHER.of(8)
    assert got.jain >= 0.95
    assert got.busy >= 0.95


@pytest.mark.parametrize("times", [0.2, 2.0])  # more than two's time is not measured
def test_shares_are_fair_where_one_frame_alone_was_timed_wrongly(times: float) -> None:
    measured = Costs({1: times * RUN_S, 2: 2 * RUN_S})
    assert simulate(lambda robot, frame: frame / 30 + PHASES[robot], measured=measured).jain >= 0.95


def test_below_capacity_every_frame_is_served() -> None:
    got = simulate(lambda robot, frame: frame / 30 + robot * 0.011, num_robots=1, seconds=5)
    assert got.served == {"0": 150}
    assert max(got.ages_s) == pytest.approx(RUN_S)


def test_costs_stop_where_batching_has_stopped_paying() -> None:
    sizes: list[int] = []
    costs = measure_costs(sizes.append, max_batch=3, budget_s=1)
    assert set(sizes) == {1, 2}
    assert set(costs.seconds) == {1, 2}


def test_a_disturbed_measurement_does_not_make_one_frame_dearer_than_two() -> None:
    costs = measure_costs(lambda num: time.sleep(0.02 if num == 1 else 0.001), max_batch=2)
    assert costs.of(1) == costs.of(2) < 0.02
