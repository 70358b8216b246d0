"""The `bench-serve` command: put load on a running server, and report the results as text, JSON and a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, ServingError

from robossl.common.atomic_io import atomic_write, check_folder, raise_disk_full
from robossl.encoders.credentials import read_credentials
from robossl.errors import InputError, ResourceError
from robossl.exporting.parity import natural_frames
from robossl_serving.bench.figures import Figures, figures_of
from robossl_serving.bench.load import Arrivals, Connect, Load, Transport, apply_load
from robossl_serving.bench.plot import plot
from robossl_serving.bench.trace import Trace
from robossl_serving.limits import Limits

LoadPattern = Literal["closed", "paced", "overload"]

# Time limit for connecting. It is short, because the server should be running already.
_CONNECT_MS = 2000.0
# Meanings of the words in the report. A reason for lost frames is printed only if it occurred.
_WORDS = {
    "age": "from a frame's capture to its reply",
    "latency": "from sending to reply",
    "run": "time in the encoder",
    "evenness": "Jain's index, 1 if all clients got the same",
}
_REASONS = {
    "skipped": "not sent, because the next frame was due",
    "dropped": "replaced by a newer frame, late, refused, or without reply at the end",
    "SupersededError": "replaced by a newer frame",
    "DeadlineError": "past its deadline",
    "OverloadedError": "no room at the server",
    "UnavailableError": "no connection",
}
# Number of clients that measure the server's capacity. With two, one request runs while the other is on the network.
_CAPACITY_CLIENTS = 2


def bench_serve(
    target: str = "127.0.0.1:8001",
    *,
    pattern: LoadPattern = "paced",
    robots: int = 1,
    hz: float = 30.0,
    times: float = 4.0,
    arrivals: Arrivals = "spread",
    transport: Transport = "stream",
    batch_clients: int = 0,
    batch_size: int = 8,
    seconds: float = 10.0,
    frame_hw: tuple[int, int] = (224, 224),
    model: str | None = None,
    token: Path | None = None,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    deadline_ms: float = 1000.0,
    out: Path = Path("bench-serve"),
) -> str:
    """Put load on a running server and measure the age (time from capture to reply) of the frames it serves.

    Clients are threads of this process, each with its own connection.

    Args:
        target: host:port of the server.
        pattern: When robots send frames. closed: each frame after the previous reply; paced: at --hz;
            overload: at --times times the server's capacity.
        robots: Number of robots.
        hz: Frames per second of each robot, for paced.
        times: Load as a multiple of the server's capacity, for overload.
        arrivals: How the robots' send times differ. locked: all robots send together; spread: one after the other at
            even intervals; jittered: at random phases with noise.
        transport: How robots send frames. unary: by calls; stream: by a stream; shared-memory and shared-stream: by
            calls or a stream with the pixels in shared memory, which needs a server on this host with --shared-memory.
        batch_clients: Number of batch clients; each sends its next call after the previous reply.
        batch_size: Number of frames in a batch client's call.
        seconds: How long to measure, after half a second of warm-up.
        frame_hw: Height and width of the frames.
        model: Name of the model; not needed if the server has only one model.
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate.
        cert: PEM file of your own certificate, for a server that was started with --client-ca.
        key: PEM file with the key of --cert.
        deadline_ms: How long a call may take; with streams, how old a frame may be when its reply is ready.
        out: Folder for bench.json and bench.png.

    Raises:
        InputError: the load has no client, a number is out of range, or `out` cannot be written to.
        ResourceError: the server cannot be reached or refuses the calls, or the disk is full.
    """
    load = Load(
        robots=robots,
        hz=None if pattern == "closed" else hz,
        arrivals=arrivals,
        transport=transport,
        batch_clients=batch_clients,
        batch_size=batch_size,
        seconds=seconds,
    )
    _check_numbers(
        hz=hz, times=times, seconds=seconds, deadline_ms=deadline_ms, batch_size=batch_size, frame_hw=frame_hw
    )
    _check_load(load, frame_hw, sends_batches=batch_clients > 0 or pattern == "overload")
    options = {"model": model, "deadline_ms": deadline_ms, **read_credentials(token, ca, cert=cert, key=key)}
    connect: Connect = partial(_connect, target, **options)
    frame = natural_frames(1, frame_hw, seed=0)
    try:
        with connect(None, False) as client:
            what = f"{client.card.name} version {client.card.version} at {target}"
        check_folder(out, option="--out")
        capacity_per_s = measure_capacity(connect, frame, seconds / 5) if pattern == "overload" else None
        if capacity_per_s is not None:
            load = replace(load, hz=times * capacity_per_s / max(1, robots))
        traces = apply_load(load, connect, frame)
    except ServingError as error:
        raise ResourceError(f"{target}: {error}") from error
    title = f"{what}: {_described(load)}"
    _write(out, title, load, traces, capacity_per_s)
    return _table(title, traces, capacity_per_s) + f"\nwrote {out / 'bench.json'} and {out / 'bench.png'}"


def measure_capacity(connect: Connect, frame: UInt8[ndarray, "1 h w 3"], seconds: float) -> float:
    """Return how many frames per second the server answers if it is never idle.

    Raises:
        ServingError: the server cannot be reached, or answered nothing.
    """
    alone = Load(robots=0, batch_clients=_CAPACITY_CLIENTS, seconds=max(1.0, seconds))
    measured = figures_of(apply_load(alone, connect, frame), "batch")
    if measured is None or not measured.goodput_per_s:
        raise DeadlineError(f"no frame was answered within {alone.seconds:g} s; raise --deadline-ms")
    return measured.goodput_per_s


def _check_numbers(**numbers: float | tuple[int, int]) -> None:
    for name, got in numbers.items():
        values = got if isinstance(got, tuple) else (got,)
        if not all(0 < value < math.inf for value in values):
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} must be finite and above 0, got {' '.join(map(str, values))}")


def _check_load(load: Load, frame_hw: tuple[int, int], *, sends_batches: bool) -> None:
    if load.robots < 0 or load.batch_clients < 0 or not load.robots + load.batch_clients:
        raise InputError(
            f"there is no client: got --robots {load.robots} --batch-clients {load.batch_clients}; raise one"
        )
    call_bytes = math.prod(frame_hw) * 3 * (load.batch_size if sends_batches else 1)
    if call_bytes > Limits().message_bytes:
        raise InputError(
            f"--frame-hw and --batch-size make calls of {call_bytes} bytes, over the server's limit of "
            f"{Limits().message_bytes}; choose smaller ones"
        )


def _connect(target: str, robot: str | None, is_shared: bool, **options: Any) -> EncoderClient:
    return EncoderClient(target, robot=robot, shared_memory=is_shared, connect_ms=_CONNECT_MS, **options)


def _described(load: Load) -> str:
    pace = "in closed loop" if load.hz is None else f"at {load.hz:.1f} Hz ({load.arrivals})"
    robots = f"{load.robots} robots {pace} by {load.transport}"
    others = f", {load.batch_clients} batch clients with {load.batch_size} frames a call" if load.batch_clients else ""
    return f"{robots}{others}, {load.seconds:g} s"


def _classes(traces: Sequence[Trace]) -> dict[str, Figures]:
    found = {kind: figures_of(traces, kind) for kind in ("control", "batch")}
    return {kind: figures for kind, figures in found.items() if figures is not None}


def _table(title: str, traces: Sequence[Trace], capacity_per_s: float | None) -> str:
    lines = [title]
    for kind, of in _classes(traces).items():
        lost = ", ".join(f"{count} {reason}" for reason, count in of.lost.items()) or "none"
        lines += [
            f"{kind}: {of.goodput_per_s:.1f} frames/s served of {of.sent_per_s:.1f} sent; lost: {lost}; "
            f"evenness {of.jain:.3f}",
            f"  ms, p50 / p95 / p99: age {of.age_ms}, latency {of.latency_ms}, "
            f"at the server {of.server_ms}, run {of.infer_ms}",
        ]
    if capacity_per_s is not None:
        served = sum(of.goodput_per_s for of in _classes(traces).values())
        share = served / max(capacity_per_s, 1e-9)
        lines.append(f"capacity {capacity_per_s:.1f} frames/s, measured before the load; {share:.0%} of it was served")
    words = _WORDS | {reason: _REASONS[reason] for of in _classes(traces).values() for reason in of.lost}
    return "\n".join([*lines, *(f"{word}: {meaning}" for word, meaning in words.items())])


def _write(out: Path, title: str, load: Load, traces: Sequence[Trace], capacity_per_s: float | None) -> None:
    content = {
        "schema": "robossl.bench-serve/1",
        "title": title,
        "load": asdict(load),
        "capacity_per_s": capacity_per_s,
        "classes": {kind: asdict(figures) for kind, figures in _classes(traces).items()},
    }
    with raise_disk_full(out):
        with atomic_write(out / "bench.json") as aside:
            aside.write_text(json.dumps(content, indent=2) + "\n")
        plot(out / "bench.png", traces, title)
