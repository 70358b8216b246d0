"""The scheduler in simulated time: what goes first, what is shed, and that no robot is forgotten."""

from __future__ import annotations

import math
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
    plan = scheduler.take(now_s)
    if plan.slices:
        scheduler.learn(plan, run_s=RUN_S * plan.num_frames, now_s=now_s + RUN_S)
    return [each.request for each in plan.slices]


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
    plan = scheduler.take(0.0)
    assert plan.shed == (late,)
    assert [each.request for each in plan.slices] == [able]


def test_one_slow_spell_does_not_shed_everything_for_ever() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    scheduler.add(request(at_s=0.0))
    plan = scheduler.take(0.0)
    for _ in range(50):
        scheduler.learn(plan, run_s=10 * RUN_S, now_s=1.0)
    assert scheduler.estimate_s(1, 1.0) > 5 * RUN_S
    scheduler.add(request(at_s=1.0, allowed_s=3 * RUN_S))
    assert scheduler.take(1.0).shed
    scheduler.add(request(at_s=4.0, allowed_s=3 * RUN_S))
    assert scheduler.take(4.0).slices


def test_a_slow_measurement_at_load_does_not_shed_everything_for_ever() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    for at_s in (0.0, 1.0):
        scheduler.add(request(at_s=at_s, allowed_s=RUN_S / 8))
        assert scheduler.take(at_s).shed
    scheduler.add(request(at_s=5.0, allowed_s=RUN_S / 8))
    assert scheduler.take(5.0).slices


def test_the_estimate_follows_a_faster_machine_at_once() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    scheduler.add(request())
    scheduler.learn(scheduler.take(0.0), run_s=RUN_S / 4, now_s=0.0)
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
        plan = scheduler.take(0.1)
        seen += [(each.request.robot, each.start, each.stop) for each in plan.slices]
        for each in plan.slices:
            each.request.num_done = each.stop
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
    plan = scheduler.take(0.0)
    assert [each.request.robot for each in plan.slices] == ["a"]


def test_a_removed_request_is_not_run() -> None:
    scheduler = Scheduler(FLAT, max_waiting=4)
    control, batch = request("a"), request(None)
    for each in (control, batch):
        scheduler.add(each)
        assert scheduler.remove(each)
        assert not scheduler.remove(each)
    assert len(scheduler) == 0
    assert scheduler.take(0.0).slices == ()


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
        plan = scheduler.take(now_s)
        if not plan.slices:
            now_s = arrivals[0][0] if arrivals else now_s
            continue
        run_s = costs.of(plan.num_frames)
        now_s += run_s
        busy_s += run_s
        scheduler.learn(plan, run_s=run_s, now_s=now_s)
        for each in (each.request for each in plan.slices):
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


FAST_S = 0.008  # a run of a robot's frame, which is allowed 30 ms
FAST = Costs({1: FAST_S, 2: 2 * FAST_S, 4: 4 * FAST_S})
Truth = Callable[[Request, float], float]  # seconds of one frame of a request at a time


def needlessly_shed(
    truth: Truth,
    *,
    others: list[Request] | None = None,
    costs: Costs = FAST,
    side: Callable[[float], int] = lambda _: 2,
) -> int:
    """Frames of one robot at 30 Hz that were shed though they would have been ready in time, in five seconds."""
    scheduler = Scheduler(costs, max_waiting=70)
    robot = [request("a", at_s=n / 30, allowed_s=0.03, side=side(n / 30)) for n in range(150)]
    arrivals = sorted([*robot, *(others or [])], key=lambda each: each.arrived_s)
    now_s, shed = 0.0, 0
    while arrivals or len(scheduler):
        while arrivals and arrivals[0].arrived_s <= now_s:
            scheduler.add(arrivals.pop(0))
        plan = scheduler.take(now_s)
        shed += sum(each.robot == "a" and each.deadline_s >= now_s + truth(each, now_s) for each in plan.shed)
        if plan.slices:
            run_s = sum(truth(each.request, now_s) * (each.stop - each.start) for each in plan.slices)
            now_s += run_s
            scheduler.learn(plan, run_s=run_s, now_s=now_s)
            for each in plan.slices:
                each.request.num_done = each.stop
        elif arrivals:
            now_s = max(now_s, arrivals[0].arrived_s)
    return shed


def other(robot: str | None = None, *, at_s: float = 1.0, num_frames: int = 1, side: int = 64) -> Request:
    return request(robot, at_s=at_s, allowed_s=60.0, num_frames=num_frames, side=side)


def takes(seconds: float) -> Truth:
    """Frames of 2x2 take what was measured, larger ones so many seconds."""
    return lambda request, _: FAST_S if request.hw == (2, 2) else seconds


def slow_between(begin_s: float, end_s: float, *, times: float) -> Truth:
    return lambda _, now_s: FAST_S * (times if begin_s <= now_s < end_s else 1)


@pytest.mark.parametrize("num", [1, 2, 3, 10])
@pytest.mark.parametrize("robot", [None, "b"], ids=["batch", "robot"])
def test_large_pictures_shed_no_frames_of_another_robot(num: int, robot: str | None) -> None:
    pictures = [other(robot, at_s=1.0 + 0.1 * number) for number in range(num)]
    assert needlessly_shed(takes(0.4), others=pictures) == 0


def test_a_batch_of_many_frames_sheds_no_frames_of_a_robot() -> None:
    assert needlessly_shed(takes(0.05), others=[other(num_frames=64)]) == 0
    assert needlessly_shed(takes(0.05), others=[other("b", num_frames=64), other("c", at_s=2.0, num_frames=16)]) == 0


@pytest.mark.parametrize(
    ("begin_s", "end_s", "times"), [(0.0, 0.1, 30), (1.0, 1.01, 20), (1.0, 1.3, 10), (1.0, 2.0, 5), (1.0, 1.5, 50)]
)
def test_a_slow_spell_sheds_frames_for_no_longer_than_a_run(begin_s: float, end_s: float, times: float) -> None:
    lasted_s = times * FAST_S
    assert needlessly_shed(slow_between(begin_s, end_s, times=times)) <= math.ceil(30 * lasted_s)


@pytest.mark.parametrize("times", [2.0, 4.0, 10.0])
def test_a_wrong_expectation_sheds_frames_for_no_longer_than_a_run(times: float) -> None:
    """Of a robot whose camera changes its resolution, and of all frames, where another program ran at load."""
    per_pixel_s = times * 0.03 / 60
    costs = Costs({1: FAST_S}, pixels=4, per_pixel_s=per_pixel_s)
    assert needlessly_shed(takes(FAST_S), costs=costs, side=lambda at_s: 2 if at_s < 1 else 8) <= 1
    measured = Costs({1: times * FAST_S, 2: 2 * times * FAST_S})
    assert needlessly_shed(takes(FAST_S), costs=measured) <= math.ceil(30 * times * FAST_S)


def test_the_first_run_of_a_size_may_be_slow() -> None:

    def truth(request: Request, now_s: float) -> float:
        return 0.5 if request.hw == (8, 8) and now_s < 1.4 else FAST_S  # kernels are chosen

    assert needlessly_shed(truth, side=lambda at_s: 2 if at_s < 1 else 8) <= 1


def test_hopeless_deadlines_are_tried_seldom() -> None:
    """A robot that allows less than a run takes, again and again, beside an idle encoder."""
    for part in (0.9, 0.6, 0.2):
        scheduler, busy_s = Scheduler(FAST, max_waiting=4), 0.0
        for number in range(3000):
            now_s = number / 300
            scheduler.add(request("a", at_s=now_s, allowed_s=part * FAST_S))
            plan = scheduler.take(now_s)
            if plan.slices:
                busy_s += FAST_S
                scheduler.learn(plan, run_s=FAST_S, now_s=now_s + FAST_S)
        assert busy_s / 10 < (0.25 if part > 0.3 else 0.02)


def test_large_frames_are_run_alone_where_pixels_cost_much() -> None:
    costs = Costs({1: 0.002, 4: 0.003}, pixels=4, per_pixel_s=0.001)
    scheduler = Scheduler(costs, max_waiting=8)
    for name in "abcd":
        scheduler.add(request(name, side=2))
    assert scheduler.take(0.0).num_frames == 4
    for name in "abcd":
        scheduler.add(request(name, at_s=0.1, side=8))
    assert scheduler.take(0.1).num_frames == 1
