"""Minutes of robots, batch clients, killed clients and hot reloads: memory, descriptors and threads stay flat.

`ROBOSSL_SOAK_SECONDS=20 pytest -m soak tests/serving/test_soak.py` tries it in short; the default is ten minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from robossl_client.client import EncoderClient
from robossl_client.errors import EncoderChangedError
from serving_kit import FRAMES, build_tiny

SECONDS = float(os.environ.get("ROBOSSL_SOAK_SECONDS", "600"))
RELOAD_S, KILL_S, PINNED_S = 4.0, 3.0, 2.0

SERVER = """
import signal, sys, threading
from pathlib import Path
from robossl_serving.command import _keep_freed_memory
from robossl_serving.server import EncoderServer, ServerSettings
_keep_freed_memory()
settings = ServerSettings(port=0, shared_memory=True, poll_seconds=0.5, retire_seconds=1.0)
server = EncoderServer(Path(sys.argv[1]), settings)
server.start()
print(server.port, flush=True)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
while not stop.wait(0.5):
    pass
server.stop()
"""

DOOMED = """
import sys
import numpy as np
from robossl_client.client import EncoderClient
frames = np.zeros((1, 60, 80, 3), np.uint8)
client = EncoderClient(sys.argv[1], robot="doomed", shared_memory=True, follow=True)
client.encode(frames)
stream = client.latest()
print("running", flush=True)
while True:
    stream.send(frames)
    stream.take(wait_ms=1000)
"""


@contextmanager
def process(script: str, argument: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    started = subprocess.Popen([sys.executable, "-c", script, str(argument)], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    try:
        yield started, started.stdout.readline().strip()
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def state(pid: int) -> tuple[float, int, int]:
    """Resident MiB, descriptors, threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(fields["Threads"])


class Crew:
    """Threads that go on until they are stopped, and what they failed with."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failures: list[Exception] = []
        self.counts: dict[str, int] = {}
        self._threads: list[threading.Thread] = []

    def start(self, name: str, turn: Callable[[], object], *, every_s: float) -> None:
        def go_on() -> None:
            while not self.stop.wait(every_s):
                try:
                    turn()
                    self.counts[name] = self.counts.get(name, 0) + 1
                except Exception as error:
                    self.failures.append(error)
                    return

        self._threads.append(threading.Thread(target=go_on, name=name))
        self._threads[-1].start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()


def _doomed(target: str) -> None:
    with process(DOOMED, target) as (client, said):
        assert said == "running"
        client.send_signal(signal.SIGKILL)


def _pinned(target: str) -> None:
    """Keep to an encoder until it is retired, then take the new one."""
    with EncoderClient(target, deadline_ms=20_000) as client:
        until_s = time.monotonic() + PINNED_S
        while time.monotonic() < until_s:
            reply = client.encode(FRAMES[:1])
            assert reply.digest == client.card.digest
        time.sleep(PINNED_S)
        with suppress(EncoderChangedError):
            client.encode(FRAMES[:1])


@pytest.mark.soak
def test_memory_descriptors_and_threads_stay_flat(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1)
    versions = iter(range(2, 10**6))

    def reload() -> None:
        build_tiny(tmp_path / ".aside", version=(version := next(versions)))
        (tmp_path / ".aside" / "tiny" / str(version)).rename(tmp_path / "tiny" / str(version))

    crew, samples = Crew(), []
    with process(SERVER, tmp_path) as (server, port):
        target = f"127.0.0.1:{port}"
        batch = EncoderClient(target, follow=True, deadline_ms=20_000)
        shared = EncoderClient(target, follow=True, robot="shared", shared_memory=True, deadline_ms=20_000)
        robots = [EncoderClient(target, follow=True, robot=f"arm {number}") for number in range(4)]
        streams = [robot.latest() for robot in robots]
        for number, stream in enumerate(streams):
            crew.start(f"arm {number}", lambda stream=stream: (stream.send(FRAMES[:1]), stream.take()), every_s=1 / 30)
        crew.start("batch", lambda: batch.encode(FRAMES), every_s=0.05)
        crew.start("shared", lambda: shared.encode(FRAMES[:1]), every_s=0.05)
        crew.start("pinned", lambda: _pinned(target), every_s=0.1)
        crew.start("reload", reload, every_s=RELOAD_S)
        crew.start("killed", lambda: _doomed(target), every_s=KILL_S)
        until_s = time.monotonic() + SECONDS
        while time.monotonic() < until_s and not crew.failures:
            samples.append([*state(server.pid), *state(os.getpid())])
            time.sleep(SECONDS / 200)
        crew.end()
        for each in (*streams, *robots, batch, shared):
            each.close()
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert crew.failures == []
    assert all(crew.counts[name] for name in ("batch", "shared", "pinned", "reload", "killed", "arm 0"))
    quarter = len(samples) // 4
    before, after = np.median(samples[quarter : 2 * quarter], 0), np.median(samples[-quarter:], 0)
    print(f"{crew.counts}; server MiB, descriptors, threads, then the clients': {before} to {after}")
    for name, was, now in zip(("server", "clients"), before.reshape(2, 3), after.reshape(2, 3), strict=True):
        assert now[0] <= 1.05 * was[0] + 2, f"{name}: memory"
        assert now[1] <= was[1] + 6, f"{name}: descriptors"
        assert now[2] <= was[2] + 6, f"{name}: threads"
