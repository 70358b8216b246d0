"""Measure the overhead of our server over bare grpcio, and the age of frames at four times the capacity.

    python benchmarks/bench_serving.py [--rounds 7] [--seconds 2] [--robot-seconds 20]

First part: frames of 150 KB to a model that costs next to nothing, by calls, by the stream of newest frames, and by
shared memory; in a closed loop, at 30 Hz and at 100 Hz. Overhead is a round trip minus the median run of onnxruntime in
this process at the same pace. It is compared with a bare grpcio server that receives and returns as many bytes. Blocks
of all transports alternate; p50 is the median over rounds, p99 is over all rounds together.

Second part: 8 robots at 30 Hz on a model that serves a quarter of that.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from robossl_client.client import EncoderClient
from robossl_client.latest import Latest
from robossl_serving.bench.command import measure_capacity
from robossl_serving.bench.figures import figures_of
from robossl_serving.bench.load import Arrivals, Load, apply_load
from serving_models import DIM, model_of_cost, null_model, some_frame
from serving_processes import echo_server, robossl_server

from robossl.encoders.onnx_session import open_session

PACES = {"closed loop": None, "30 Hz": 30.0, "100 Hz": 100.0}
ROBOTS, HZ, TIMES = 8, 30.0, 4
REPLY_BYTES = 4 * DIM + 284  # features, names, digests and times
WAIT_MS = 10_000.0  # longer than any request on a busy machine
Ask = Callable[[], object]
Key = tuple[str, str]  # pace, transport


@contextmanager
def open_transports(models: Path) -> Iterator[dict[str, Ask]]:
    """Start the servers and yield one function per transport that asks for one frame."""
    frame = some_frame()
    raw = frame.tobytes()
    session = open_session(models / "null" / "1" / "model.onnx", threads=1)
    with ExitStack() as stack:
        echo_port = stack.enter_context(echo_server(REPLY_BYTES))
        target = f"127.0.0.1:{stack.enter_context(robossl_server(models, '--shared-memory'))}"
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{echo_port}"))
        echo = channel.unary_unary("/echo.Echo/Unary")
        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        echoes = channel.stream_stream("/echo.Echo/Stream")(iter(outbox.get, None))
        stack.callback(outbox.put, None)
        client = stack.enter_context(EncoderClient(target, robot="calls", deadline_ms=WAIT_MS))
        memory = stack.enter_context(EncoderClient(target, robot="memory", shared_memory=True, deadline_ms=WAIT_MS))
        robots = [EncoderClient(target, robot=f"stream {shared}", shared_memory=shared) for shared in (False, True)]
        streams = [stack.enter_context(stack.enter_context(robot).latest()) for robot in robots]

        def by_echo_stream() -> object:
            outbox.put(raw)
            return next(echoes)

        def by_stream(stream: Latest) -> object:
            stream.send(frame)
            reply = stream.take(wait_ms=WAIT_MS)
            assert reply is not None
            return reply

        yield {
            "in process": lambda: session.run(None, {"frames": frame}),
            "echo, calls": lambda: echo(raw),
            "ours, calls": lambda: client.encode(frame),
            "echo, stream": by_echo_stream,
            "ours, stream": partial(by_stream, streams[0]),
            "ours, shared memory": lambda: memory.encode(frame),
            "ours, stream in shared memory": partial(by_stream, streams[1]),
        }


def block(ask: Ask, hz: float | None, seconds: float) -> list[float]:
    """Return the seconds of each answer, one after another or at a pace."""
    taken = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        if hz is not None:
            time.sleep(1 / hz - (now - began) % (1 / hz))
        asked = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - asked)
    return taken


def overhead(models: Path, *, rounds: int, seconds: float) -> None:
    """Print the first part."""
    rows: dict[Key, list[list[float]]] = defaultdict(list)
    with open_transports(models) as transports:
        for ask in transports.values():
            for _ in range(50):
                ask()
        order = list(transports)
        for _ in range(rounds):
            order = [*order[1:], order[0]]
            for pace, hz in PACES.items():
                for name in order:
                    # The slowest pace gets longer blocks, for its p99.
                    rows[pace, name].append(block(transports[name], hz, seconds if hz != 30 else 2 * seconds))
    for pace in PACES:
        for ours, echo in (
            ("ours, calls", "echo, calls"),
            ("ours, stream", "echo, stream"),
            ("ours, shared memory", "echo, calls"),
            ("ours, stream in shared memory", "echo, stream"),
        ):
            print(_overhead_line(pace, ours, echo, rows))
        calls = _overheads(rows, pace, "ours, calls")
        for name in ("ours, stream", "ours, shared memory", "ours, stream in shared memory"):
            faster = [a / b for a, b in zip(calls, _overheads(rows, pace, name), strict=True)]
            print(f"{pace}: {name} {_ranged(faster)} times as fast as calls at p50")


def _overheads(rows: dict[Key, list[list[float]]], pace: str, name: str) -> list[float]:
    """Return p50 minus the run for each round."""
    return [
        statistics.median(taken) - statistics.median(run)
        for taken, run in zip(rows[pace, name], rows[pace, "in process"], strict=True)
    ]


def _overhead_line(pace: str, ours: str, echo: str, rows: dict[Key, list[list[float]]]) -> str:
    run_s = statistics.median(statistics.median(each) for each in rows[pace, "in process"])
    floors = [statistics.median(each) for each in rows[pace, echo]]
    ratios = [a / b for a, b in zip(_overheads(rows, pace, ours), floors, strict=True)]
    ours_p99, echo_p99 = (np.percentile(np.concatenate(rows[pace, name]), 99) for name in (ours, echo))
    ours_p99 -= run_s
    p50_ms = 1e3 * statistics.median(_overheads(rows, pace, ours))
    return (
        f"{pace}, {ours}: overhead {_ranged(ratios)} x {echo} at p50, {ours_p99 / echo_p99:.2f} x at p99 "
        f"({p50_ms:.3f} and {1e3 * ours_p99:.3f} ms over {1e3 * statistics.median(floors):.3f} and "
        f"{1e3 * echo_p99:.3f} ms; run {1e3 * run_s:.3f} ms)"
    )


def _ranged(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def overload(models: Path, *, rounds: int, seconds: float) -> None:
    """Print the second part."""
    frame = some_frame()
    with robossl_server(models) as port:

        def connect(robot: str | None, is_shared: bool) -> EncoderClient:
            return EncoderClient(f"127.0.0.1:{port}", robot=robot, shared_memory=is_shared, deadline_ms=WAIT_MS)

        first_come = figures_of(
            apply_load(Load(robots=0, batch_clients=ROBOTS, seconds=seconds / 4), connect, frame), "batch"
        )
        assert first_come is not None
        print(
            f"first come, first served, {ROBOTS} clients: p99 age "
            f"{first_come.age_ms.p99 / first_come.infer_ms.p50:.1f} runs ({first_come.age_ms.p99:.0f} ms)"
        )
        for number in range(rounds):
            arrivals: Arrivals
            for arrivals in ("locked", "jittered"):
                before = measure_capacity(connect, frame, seconds / 4)
                load = Load(robots=ROBOTS, hz=HZ, arrivals=arrivals, seconds=seconds)
                got = figures_of(apply_load(load, connect, frame, seed=number), "control")
                after = measure_capacity(connect, frame, seconds / 4)
                assert got is not None
                capacity = (before + after) / 2
                allowed_ms = 1e3 / HZ + 1.2 * got.infer_ms.p50
                print(
                    f"{ROBOTS} robots at {HZ:.0f} Hz, {arrivals}, {ROBOTS * HZ / capacity:.1f} x the capacity: "
                    f"p99 age {got.age_ms.p99 / allowed_ms:.2f} x (a period + 1.2 runs), "
                    f"goodput {got.goodput_per_s / capacity:.2f} x capacity, Jain {got.jain:.3f} "
                    f"(age {got.age_ms} ms, run {got.infer_ms.p50:.1f} ms, "
                    f"{got.goodput_per_s:.1f} of {before:.1f} and {after:.1f} frames/s)"
                )


def main() -> None:
    """Print both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="per block; twice that at 30 Hz")
    parser.add_argument("--robot-seconds", type=float, default=20.0, help="per block of robots; 0 skips them")
    parser.add_argument("--robot-rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        null_model(Path(folder, "null"))
        if args.rounds:
            overhead(Path(folder, "null"), rounds=args.rounds, seconds=args.seconds)
        if args.robot_seconds:
            model_of_cost(Path(folder, "robots"), TIMES / (ROBOTS * HZ))
            overload(Path(folder, "robots"), rounds=args.robot_rounds, seconds=args.robot_seconds)


if __name__ == "__main__":
    main()
