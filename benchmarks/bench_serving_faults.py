"""Measure how large pictures, expensive images and batch requests of others affect a robot and the machine.

    python benchmarks/bench_serving_faults.py [--parts pictures scans leave memory models]

pictures: a robot at 30 Hz that allows 30 ms, on an idle encoder, while a batch client sends 1, 2 and 3 pictures of 12
megapixels. scans: CPU time of one small JPEG of 883 scans whose caller waits two seconds. leave: CPU time of a call
with PNGs whose caller leaves after a fifth of a second. memory: 24 PNGs of 4700x4700 at the same time. models: three
cameras at 30 Hz, alone and beside a batch client of another model.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import simplejpeg
from PIL import Image
from robossl_client._proto import inference_pb2 as pb
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError
from robossl_client.wire import CALLS, path
from serving_models import SIDE, convolutions, null_model, small_vit, some_frame

sys.path.append(str(Path(__file__).parents[1] / "tests" / "kits"))
from dear_images import flat_png, many_scans

PARTS = ("pictures", "scans", "leave", "memory", "models")
HZ, ALLOWED_MS = 30.0, 30.0
LARGEST = 4700  # side of the largest square picture in a call, px


@dataclass(frozen=True)
class Server:
    """A running `robossl serve`."""

    pid: int
    port: int

    @property
    def target(self) -> str:
        """Return its address."""
        return f"127.0.0.1:{self.port}"

    def cpu_s(self) -> float:
        """Return its CPU seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settled_cpu_s(self) -> float:
        """Wait until it is idle for a second; return its CPU seconds."""
        last = -1.0
        while (now := self.cpu_s()) - last > 0.1:
            last = now
            time.sleep(1)
        return now

    def memory_mib(self, name: str) -> float:
        """Return `VmRSS` or `VmHWM`."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


@contextmanager
def serve(models: Path) -> Iterator[Server]:
    """Start a server without options."""
    command = [sys.executable, "-m", "robossl", "serve", str(models), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    try:
        found = next(found for line in process.stdout if (found := re.search(r"serving on .*:(\d+) ", line)))
        yield Server(process.pid, int(found[1]))
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


@dataclass
class Robot:
    """Asks at a pace and records lost frames and the ages of the others."""

    stop: threading.Event = field(default_factory=threading.Event)
    lost_s: list[float] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)

    def run(self, client: EncoderClient, frame: np.ndarray) -> None:
        """Ask until it is stopped."""
        began_s = time.monotonic()
        tick = 0
        while not self.stop.is_set():
            tick = max(tick + 1, int((time.monotonic() - began_s) * HZ))
            self.stop.wait(max(0.0, began_s + tick / HZ - time.monotonic()))
            try:
                self.ages_ms.append(1e3 * client.encode(frame, deadline_ms=ALLOWED_MS).age_s)
            except DeadlineError:
                self.lost_s.append(time.monotonic())


def pictures(folder: Path) -> None:
    """Print the frames lost to large pictures."""
    small_vit(folder / "vit")
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (94, 125, 3), np.uint8)).resize((4000, 3000), Image.Resampling.BICUBIC)
    picture = simplejpeg.encode_jpeg(np.asarray(rough), quality=90)
    frame = rng.integers(0, 255, (1, 96, 96, 3), np.uint8)
    for num in (1, 2, 3):
        with serve(folder / "vit") as server, ExitStack() as stack:
            client = stack.enter_context(EncoderClient(server.target, robot="arm"))
            batch = stack.enter_context(EncoderClient(server.target))
            for _ in range(20):
                client.encode(frame, deadline_ms=10_000)
            robot = Robot()
            thread = threading.Thread(target=robot.run, args=(client, frame))
            thread.start()
            time.sleep(1)
            began_s, before = time.monotonic(), len(robot.lost_s)
            send = partial(batch.encode, [picture], deadline_ms=60_000)
            with ThreadPoolExecutor(num) as pool:
                replies = [each.result() for each in [pool.submit(send) for _ in range(num)]]
            done_s = time.monotonic()
            time.sleep(3)
            robot.stop.set()
            thread.join()
            during = sum(began_s <= each <= done_s for each in robot.lost_s)
            after = sum(each > done_s for each in robot.lost_s)
            runs_ms = ", ".join(f"{reply.infer_us / 1e3:.0f}" for reply in replies)
            print(
                f"pictures: {num} of 12 MP at once (runs of {runs_ms} ms): lost {during} frames "
                f"meanwhile and {after} on the idle encoder after; {before} in the second before; age p50 "
                f"{np.median(robot.ages_ms):.1f} ms",
                flush=True,
            )


def _request(model: str, *encoded: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model)
    message.inputs.add(name="frames", datatype="BYTES", shape=[len(encoded)]).contents.bytes_contents.extend(encoded)
    return message


@contextmanager
def _asking(server: Server) -> Iterator[grpc.UnaryUnaryMultiCallable]:
    call = CALLS["ModelInfer"]
    with grpc.insecure_channel(server.target) as channel:
        ask = channel.unary_unary(path("ModelInfer"), call.encode_request, call.decode_response)
        ask(_request("null", flat_png(64)), timeout=30)
        yield ask


def scans(folder: Path) -> None:
    """Print the CPU time of a JPEG of many scans."""
    image = many_scans(LARGEST, num_scans=883)
    null_model(folder / "scans")
    with serve(folder / "scans") as server, _asking(server) as ask:
        before_s = server.settled_cpu_s()
        began_s = time.monotonic()
        error = ask.future(_request("null", image), timeout=2).exception()
        answered_s = time.monotonic() - began_s
        spent_s = server.settled_cpu_s() - before_s
        print(
            f"scans: a JPEG of {len(image) / 1e3:.0f} kB: {error.code().name if error else 'OK'} after "
            f"{answered_s:.2f} s, {spent_s:.2f} s of CPU in all",
            flush=True,
        )


def leave(folder: Path) -> None:
    """Print the CPU time for a caller that has left."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (850, 850, 3), np.uint8)
    Image.fromarray(noise // 32 * 32).save(file, "PNG")
    message = _request("null", *[file.getvalue()] * 30)
    null_model(folder / "leave")
    with serve(folder / "leave") as server, _asking(server) as ask:
        before_s = server.settled_cpu_s()
        assert ask(message, timeout=60)
        whole_s = server.settled_cpu_s() - before_s
        before_s = server.cpu_s()
        call = ask.future(message, timeout=60)
        time.sleep(0.2)
        call.cancel()
        spent_s = server.settled_cpu_s() - before_s
        print(
            f"leave: 30 PNGs take {whole_s:.2f} s of CPU; {spent_s:.2f} s if the caller leaves after 0.2 s", flush=True
        )


def memory(folder: Path) -> None:
    """Print the peak memory of many large pictures and the memory after them."""
    picture = flat_png(LARGEST)
    null_model(folder / "memory")
    with serve(folder / "memory") as server, _asking(server) as ask:
        before_mib = server.memory_mib("VmRSS")
        began_s = time.monotonic()
        calls = [ask.future(_request("null", picture), timeout=120) for _ in range(24)]
        errors = [each.exception() for each in calls]
        took_s = time.monotonic() - began_s
        peak_mib = server.memory_mib("VmHWM")
        time.sleep(5)
        print(
            f"memory: 24 PNGs of {len(picture) / 1e3:.0f} kB in {took_s:.1f} s, {errors.count(None)} answered: "
            f"{before_mib:.0f} MiB before, {peak_mib:.0f} at most, {server.memory_mib('VmRSS'):.0f} five seconds after",
            flush=True,
        )


def models(folder: Path) -> None:
    """Print the rates of three cameras beside a batch client of another model."""
    for name in ("robots", "batch"):
        convolutions(folder / "models", name, layers=8)
    frame = some_frame()
    with serve(folder / "models") as server, ExitStack() as stack:
        client = stack.enter_context(EncoderClient(server.target, model="robots", robot="arm"))
        other = stack.enter_context(EncoderClient(server.target, model="batch"))
        for each in (client, other):
            for _ in range(20):
                each.encode(frame, deadline_ms=10_000)
        _cameras(client, frame, "alone")
        stop, served = threading.Event(), 0

        def ask() -> None:
            nonlocal served
            frames = np.repeat(frame, 8, 0)
            while not stop.is_set():
                other.encode(frames, deadline_ms=60_000)
                served += len(frames)

        thread = threading.Thread(target=ask)
        thread.start()
        began_s = time.monotonic()
        _cameras(client, frame, "beside a batch client of another model")
        rate = served / (time.monotonic() - began_s)
        stop.set()
        thread.join()
        print(f"models: {rate:.1f} batch frames/s meanwhile", flush=True)


def _cameras(client: EncoderClient, frame: np.ndarray, how: str, *, seconds: float = 8.0) -> None:
    streams = [client.latest(camera=str(number)) for number in range(3)]
    ages_ms: list[float] = []
    began_s = time.monotonic()
    for tick in range(int(seconds * HZ)):
        due_s = began_s + tick / HZ
        time.sleep(max(0.0, due_s - time.monotonic()))
        for stream in streams:
            stream.send(frame, captured_s=due_s)
        for stream in streams:
            reply = stream.take(wait_ms=max(0.0, 1e3 * (due_s + 0.9 / HZ - time.monotonic())))
            if reply is not None:
                ages_ms.append(1e3 * reply.age_s)
    took_s = time.monotonic() - began_s
    for stream in streams:
        stream.close()
    p50, p99 = np.percentile(ages_ms, [50, 99])
    print(
        f"models: 3 cameras at {HZ:.0f} Hz ({SIDE} px) {how}: {len(ages_ms) / took_s / 3:.1f} frames/s a camera, "
        f"age p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        flush=True,
    )


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    with tempfile.TemporaryDirectory() as folder:
        for part in parser.parse_args().parts:
            {"pictures": pictures, "scans": scans, "leave": leave, "memory": memory, "models": models}[part](
                Path(folder)
            )


if __name__ == "__main__":
    main()
