"""What goes wrong in the field: broken messages, bombs, clients that die or do not read, storms of deadlines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from robossl_client.client import EncoderClient
from robossl_client.errors import DeadlineError, SupersededError
from robossl_client.shared import FOLDER
from robossl_client.wire import CALLS, path
from robossl_serving.limits import Limits
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Holder, Raw, build_tiny, calling, eventually, infer_request, serving, status_of

FIXED = {"INVALID_ARGUMENT", "NOT_FOUND"}  # what a broken message may be answered with


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


@pytest.fixture
def call(server: EncoderServer) -> Iterator[Raw]:
    with calling(server) as call:
        yield call


def _mutated(raw: bytes, rng: np.random.Generator) -> bytes:
    """A message with flipped bits, cut off, with a piece doubled, or with a piece left out."""
    data = bytearray(raw)
    for _ in range(rng.integers(1, 4)):
        at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 9))
        match rng.integers(0, 4):
            case 0:
                data[at] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = data[at : at + size]
            case _:
                del data[at : at + size]
        if not data:
            return b""
    return bytes(data)


def _throw(call: Raw, num_messages: int) -> set[str]:
    rng = np.random.default_rng(0)
    frames = FRAMES[:1, :3, :4]
    typed = infer_request(frames, robot="arm", camera="wrist", age_us=5)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.uint_contents.extend(frames.ravel().tolist())
    seeds = [infer_request(frames, robot="arm").SerializeToString(), typed.SerializeToString()]
    seen = set()
    for number in range(num_messages):
        try:
            call("ModelInfer", _mutated(seeds[number % 2], rng))
            seen.add("OK")
        except grpc.RpcError as error:
            seen.add(error.code().name)
            said = error.details()
            assert "Traceback" not in said and "Error" not in said and ".py" not in said, said
    return seen


def test_mutated_messages(call: Raw) -> None:
    assert _throw(call, 1_000) <= FIXED | {"OK"}
    assert call("ModelInfer", infer_request()).model_name == "tiny"


@pytest.mark.slow
def test_twenty_thousand_mutated_messages(call: Raw) -> None:
    assert _throw(call, 20_000) <= FIXED | {"OK"}


def test_hostile_shapes_and_parameters(call: Raw) -> None:
    for shape in ([2**63 - 1, 1, 1, 3], [-1, -1, -1, 3], [1] * 10_000, [3, 60, 80, -3]):
        message = infer_request()
        message.inputs[0].shape[:] = shape
        assert status_of(lambda message=message: call("ModelInfer", message))[0] == "INVALID_ARGUMENT"
    many = infer_request()
    for number in range(100_000):
        many.parameters[f"p{number}"].int64_param = number
    assert status_of(lambda: call("ModelInfer", many))[0] == "INVALID_ARGUMENT"


CLIENT = """
import sys
import numpy as np
from robossl_client.client import EncoderClient
frames = np.zeros((1, 60, 80, 3), np.uint8)
client = EncoderClient(sys.argv[1], robot="arm", shared_memory=True)
client.encode(frames)
streams = [client.latest(camera=str(number)) for number in range(6)]
while True:
    for stream in streams:
        stream.send(frames)
    for stream in streams:
        assert stream.take(wait_ms=30_000)
    print("running", flush=True)
"""


@contextmanager
def _client(server: EncoderServer) -> Iterator[subprocess.Popen[str]]:
    target = f"127.0.0.1:{server.port}"
    process = subprocess.Popen([sys.executable, "-c", CLIENT, target], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("times", [3, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_clients_leave_nothing_behind(server: EncoderServer, times: int) -> None:
    def state() -> tuple[int, int]:
        return len(server.streams), len(server.repository.models()[0].executor)

    eventually(lambda: state() == (0, 0))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(times):
        with _client(server) as process:
            assert len(server.streams) == 6
        eventually(lambda: state() == (0, 0))
    with EncoderClient(f"127.0.0.1:{server.port}", shared_memory=True) as client:
        client.encode(FRAMES)
        assert not list(FOLDER.glob(f"robossl-{process.pid}-*")), "swept by the next client"
        assert len(server._memory.regions()) == 1
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "stream-reader"])


def test_a_frozen_client_is_let_go_and_others_do_not_feel_it(server: EncoderServer) -> None:
    with _client(server) as frozen:
        frozen.send_signal(signal.SIGSTOP)
        with EncoderClient(f"127.0.0.1:{server.port}", robot="other") as client:
            for _ in range(50):
                assert client.encode(FRAMES[:1], deadline_ms=30_000).features
        eventually(lambda: len(server.streams) == 0)
    server._memory.unregister("")


def test_a_client_that_does_not_read_is_not_read_from(server: EncoderServer) -> None:
    sent = 0

    def requests() -> Iterator[Any]:
        nonlocal sent
        while sent < 20_000:
            sent += 1
            yield infer_request()

    call = CALLS["ModelStreamInfer"]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        open_stream = channel.stream_stream(path("ModelStreamInfer"), call.encode_request, call.decode_response)
        stream = open_stream(requests())
        next(stream)
        last = -1
        while sent != last:
            last = sent
            time.sleep(0.3)
        assert sent < 20_000, "it came to a halt"
        with EncoderClient(f"127.0.0.1:{server.port}") as client:
            assert client.encode(FRAMES, deadline_ms=30_000).features
        stream.cancel()
    eventually(lambda: len(server.streams) == 0)


def test_streams_are_limited(tiny_models: Path) -> None:
    limits = Limits(streams_per_client=2)
    call = CALLS["ModelStreamInfer"]
    with (
        serving(tiny_models, ServerSettings(port=0, limits=limits)) as server,
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client,
    ):
        streams = [client.latest(camera=str(number)) for number in range(2)]
        for stream in streams:
            stream.send(FRAMES[:1])
            assert stream.take(wait_ms=30_000)
        third = client._channel.stream_stream(path("ModelStreamInfer"), call.encode_request, call.decode_response)
        code, said = status_of(lambda: next(third(iter([infer_request()]))))
        assert (code, "at most 2 streams of one client" in said) == ("RESOURCE_EXHAUSTED", True)
        for stream in streams:
            stream.close()
        eventually(lambda: len(server.streams) == 0)
        assert next(third(iter([infer_request()]))).infer_response.model_name == "tiny"


def test_frames_of_a_client_that_vanished_are_cancelled_and_counted(tiny_models: Path) -> None:
    with serving(tiny_models, ServerSettings(port=0)) as server:  # its own: what others left would be counted too
        outcomes = server.repository.models()[0].statistics.kinds["control"].outcomes
        for times in range(1, 31):  # grpc tells of one in twenty as of a client that has no more
            _vanish(server)
            eventually(lambda times=times: dict(outcomes) == {"cancelled": 3 * times, "served": times})


def _vanish(server: EncoderServer) -> None:
    """A stream that is cancelled while one of its frames is encoded and three wait."""
    gone = threading.Event()
    with Holder(server) as holder, calling(server) as call:

        def requests() -> Iterator[Any]:
            yield infer_request(FRAMES[:1], robot="vanishing")
            assert holder.entered.wait(60)
            for number in range(3):
                yield infer_request(FRAMES[:1], robot="vanishing", camera=str(number))
            gone.wait(60)

        stream = call.stream(requests())
        holder.wait_for(3)
        stream.cancel()
        gone.set()
        eventually(lambda: len(server.streams) == 0, within_s=20)


def test_a_storm_of_hopeless_deadlines_runs_next_to_nothing(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1, layers=6)
    frames = np.zeros((1, 128, 128, 3), np.uint8)
    own = [("grpc.use_local_subchannel_pool", 1)]  # a connection takes fewer calls at once than there are here
    with serving(tmp_path, ServerSettings(port=0)) as server, ExitStack() as stack:
        target = f"127.0.0.1:{server.port}"
        clients = [Raw(stack.enter_context(grpc.insecure_channel(target, options=own))) for _ in range(10)]
        for call in clients:
            call("ModelInfer", infer_request(frames))
        statistics = server.repository.models()[0].statistics
        before = statistics.to_message().execution_count
        message = infer_request(frames, timeout=1000)
        calls = [clients[number % 10].future("ModelInfer", message, timeout=30) for number in range(1000)]
        errors = [each.exception() for each in calls]
        codes = {error.code().name for error in errors if error}
        assert "DEADLINE_EXCEEDED" in codes <= {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"}
        assert statistics.to_message().execution_count - before <= 50, "at least 95 % are shed before a run"


def test_robots_beyond_the_capacity_get_fresh_frames_and_fair_shares(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1, layers=24)  # long runs: what eight robots in this process take of it counts less
    frame = np.random.default_rng(0).integers(0, 255, (1, 112, 112, 3), np.uint8)
    sent, served, stop = [0] * 8, [0] * 8, threading.Event()
    behind, unserved = [], []  # at each reply: frames since the one it answers, and a first-come queue's length
    with serving(tmp_path, ServerSettings(port=0)) as server:
        target = f"127.0.0.1:{server.port}"
        with EncoderClient(target) as client:
            run_s = float(np.median([client.encode(frame, deadline_ms=10_000).infer_us for _ in range(10)])) / 1e6

        def robot(number: int) -> None:
            with EncoderClient(target, robot=str(number)) as client, client.latest() as stream:
                while not stop.wait(2 * run_s):  # 8 robots: four times what can be served
                    stream.send(frame)
                    sent[number] += 1
                    reply = stream.take()
                    if reply is not None:
                        served[number] += 1
                        behind.append(sent[number] - int(reply.frame_id))
                        unserved.append(sent[number] - served[number])

        threads = [threading.Thread(target=robot, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        runs = server.repository.models()[0].statistics.kinds["control"].run
        eventually(lambda: min(served) > 1)  # before, the first to be connected share it among themselves
        begin_s, ran_s, before = time.monotonic(), runs.sum_s, np.array(served, float)
        time.sleep(max(3.0, 100 * run_s))
        busy = (runs.sum_s - ran_s) / (time.monotonic() - begin_s)
        counts = np.array(served, float) - before
        stop.set()
        for thread in threads:
            thread.join()
    print(f"a run {run_s:.4f} s, busy {busy:.3f}, served {counts.astype(int).tolist()}")
    assert counts.sum() ** 2 / (8 * (counts**2).sum()) > 0.9
    assert busy > 0.8, "hardly a moment without a run"
    assert sum(sent) > 2 * sum(served), "far more than can be served"
    assert np.median(behind) < np.median(unserved) / 4, "a queue's are as far behind as it is long"


def test_many_threads_of_one_robot_lose_only_to_newer_frames(server: EncoderServer) -> None:
    outcomes: list[str] = []

    def ask(client: EncoderClient) -> None:
        for _ in range(20):
            try:
                client.encode(FRAMES[:1], deadline_ms=30_000)
                outcomes.append("served")
            except (SupersededError, DeadlineError) as error:
                outcomes.append(type(error).__name__)

    with EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client:
        threads = [threading.Thread(target=ask, args=(client,)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outcomes) == 120
    assert set(outcomes) <= {"served", "SupersededError"}
    assert outcomes.count("served") >= 20
