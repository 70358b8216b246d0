"""Load: simulated robots and batch clients that send frames to a server for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray
from robossl_client.client import EncoderClient

from robossl_serving.bench.asking import ask_by_stream, ask_one_by_one
from robossl_serving.bench.ticks import Ticks
from robossl_serving.bench.trace import Trace

Transport = Literal["unary", "stream", "shared-memory", "shared-stream"]
Arrivals = Literal["locked", "spread", "jittered"]
# Function that connects a client. Arguments: robot name (None for a batch client), whether to use shared memory.
Connect = Callable[[str | None, bool], EncoderClient]

_JITTER_S = 0.004  # standard deviation of the noise on a frame's send time, for jittered arrivals
_LEAD_S = 0.05  # time for all threads to start
_NOT_SHOWN_S = 0.5  # duration of the warm-up of connections and caches, which is not measured


@dataclass(frozen=True, slots=True)
class Load:
    """The clients of a load test: their number, their rate, and how they send frames."""

    robots: int = 1
    hz: float | None = 30.0  # frame rate of each robot; None to send each frame after the previous reply
    # When robots send. locked: all together; spread: at even intervals; jittered: with random phase and noise.
    arrivals: Arrivals = "spread"
    transport: Transport = "stream"  # how robots send frames
    batch_clients: int = 0  # number of batch clients; each sends its next call after the previous reply
    batch_size: int = 1  # number of frames in a batch client's call
    seconds: float = 10.0


def apply_load(load: Load, connect: Connect, frame: UInt8[ndarray, "1 h w 3"], *, seed: int = 0) -> list[Trace]:
    """Run all clients for `load.seconds`; return their traces (records of frames and replies), robots first.

    Raises:
        ServingError: the server cannot be reached, or refuses for a reason other than overload.
    """
    rng = np.random.default_rng(seed)
    batch = np.repeat(frame, load.batch_size, 0)
    with ExitStack() as stack:
        names = [f"robot {number}" for number in range(load.robots)]
        is_shared = load.transport.startswith("shared")
        robots = [stack.enter_context(connect(name, is_shared)) for name in names]
        others = [stack.enter_context(connect(None, False)) for _ in range(load.batch_clients)]
        pool = stack.enter_context(ThreadPoolExecutor(len(robots) + len(others)))
        begin_s = time.monotonic() + _LEAD_S
        from_s, until_s = begin_s + _NOT_SHOWN_S, begin_s + _NOT_SHOWN_S + load.seconds
        ask = ask_by_stream if load.transport.endswith("stream") else ask_one_by_one
        jobs = []
        for number, client in enumerate(robots):
            trace = Trace("control", names[number], from_s, until_s)
            due_s = None if load.hz is None else begin_s + frame_times(load, number, rng)
            jobs.append(pool.submit(ask, client, frame, trace, Ticks(begin_s, due_s, trace)))
        for number, client in enumerate(others):
            trace = Trace("batch", f"batch {number}", from_s, until_s, load.batch_size)
            jobs.append(pool.submit(ask_one_by_one, client, batch, trace, Ticks(begin_s, None, trace)))
        return [job.result() for job in jobs]


def frame_times(load: Load, robot: int, rng: np.random.Generator) -> Float[ndarray, " n"]:
    """Return the capture times of a robot's frames in seconds from the start.

    >>> frame_times(Load(robots=2, hz=2.0, seconds=0.5), 1, np.random.default_rng(0))
    array([0.25, 0.75])
    """
    assert load.hz is not None
    times: ndarray = np.arange(round((load.seconds + _NOT_SHOWN_S) * load.hz)) / load.hz
    match load.arrivals:
        case "locked":
            return times
        case "spread":
            return times + robot / (load.robots * load.hz)
        case "jittered":
            phase_s = rng.uniform(0, 1 / load.hz)
            return np.sort(times + phase_s + np.abs(rng.normal(0, _JITTER_S, len(times))))
