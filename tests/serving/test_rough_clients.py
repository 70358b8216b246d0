"""Clients that send what costs much, say nothing, or do not read: others hardly notice, and nothing is kept."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import simplejpeg
from robossl_client._proto import inference_pb2 as pb
from robossl_client.client import EncoderClient
from robossl_client.wire import CALLS, path
from robossl_serving.limits import Limits
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, infer_request, server_process, serving, status_of

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)  # and empty settings


def _images(*images: bytes) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="tiny")
    message.inputs.add(name="frames", datatype="BYTES", shape=[len(images)])
    message.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in images))
    return message


def _spent(pid: int) -> tuple[float, float]:
    """CPU seconds and the highest resident MiB so far of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), peak_kib / 1024


def test_image_bombs_cost_next_to_nothing(tiny_models: Path) -> None:
    jpeg = simplejpeg.encode_jpeg(FRAMES[0])
    size_at = jpeg.index(b"\xff\xc0") + 5  # of the frame header: height, width
    huge = jpeg[:size_at] + (30_000).to_bytes(2, "big") * 2 + jpeg[size_at + 4 :]
    many = simplejpeg.encode_jpeg(np.zeros((1024, 1024, 3), np.uint8))  # 64 of them are 192 MiB decoded
    with server_process(tiny_models) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = Raw(channel)
        call("ModelInfer", infer_request())
        before_s, before_mib = _spent(process.pid)
        for bomb in (_images(huge), _images(*[many] * 64)):
            for _ in range(10):
                assert status_of(lambda bomb=bomb: call("ModelInfer", bomb))[0] == "INVALID_ARGUMENT"
        after_s, after_mib = _spent(process.pid)
        assert (after_s - before_s) / 20 < 0.1
        assert after_mib - before_mib < Limits().message_bytes / 2**20


def test_a_decompression_bomb_is_refused_within_the_limit(tiny_models: Path) -> None:
    bomb = infer_request(np.zeros((64, 1024, 1024, 3), np.uint8))  # 192 MiB, 200 kB on the wire
    with server_process(tiny_models) as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = Raw(channel)
        call("ModelInfer", infer_request())
        before_s, before_mib = _spent(process.pid)
        code, _ = status_of(lambda: call("ModelInfer", bomb, compression=grpc.Compression.Gzip, timeout=30))
        after_s, after_mib = _spent(process.pid)
        assert code == "RESOURCE_EXHAUSTED"
        assert after_s - before_s < 0.5, "it stops at the limit"
        assert after_mib - before_mib < 2 * Limits().message_bytes / 2**20
        call("ModelInfer", infer_request())


@contextmanager
def silent(server: EncoderServer, num: int) -> Iterator[list[socket.socket]]:
    """Connections whose other end has gone without a word: it never answers a ping."""
    with ExitStack() as stack:
        sockets = []
        for number in range(num):
            each = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            each.sendall(PREFACE if number % 2 else PREFACE[:10])
            sockets.append(each)
        yield sockets


def _num_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_silent_connections_do_not_keep_others_out(tiny_models: Path) -> None:
    with (
        serving(tiny_models, ServerSettings(port=0)) as server,
        silent(server, 100),
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client,
        client.latest() as stream,
    ):
        for _ in range(20):
            stream.send(FRAMES[:1])
            assert stream.take(wait_ms=30_000) is not None


@pytest.mark.slow
def test_silent_connections_are_let_go(tiny_models: Path) -> None:
    with serving(tiny_models, ServerSettings(port=0)) as server:
        before = _num_descriptors()
        with silent(server, 20) as sockets:
            time.sleep(1)
            assert _num_descriptors() >= before + 2 * len(sockets), "both ends are ours"
            until_s = time.monotonic() + 25
            while _num_descriptors() > before + len(sockets) + 2:
                assert time.monotonic() < until_s, "only our own ends should be left"
                time.sleep(0.5)


def _num_answered(server: EncoderServer) -> int:
    """Requests of those that are no robots."""
    return sum(sum(model.statistics.kinds["batch"].outcomes.values()) for model in server.repository.models())


@pytest.mark.slow
def test_a_client_that_does_not_read_does_not_slow_others_down(tiny_models: Path) -> None:
    call = CALLS["ModelStreamInfer"]
    stop = threading.Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        while not stop.is_set():
            yield infer_request()

    with (
        serving(tiny_models, ServerSettings(port=0)) as server,
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm", deadline_ms=30_000) as client,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):

        def median_ms() -> float:
            times_us = [1e6 * client.encode(FRAMES[:1]).age_s for _ in range(300)]
            return float(np.median(times_us)) / 1e3

        median_ms()
        alone_ms = [median_ms() for _ in range(3)]
        stream = channel.stream_stream(path("ModelStreamInfer"), call.encode_request, call.decode_response)(requests())
        next(stream)
        until_s = time.monotonic() + 120
        while (before := _num_answered(server)) < (time.sleep(1) or _num_answered(server)):
            assert time.monotonic() < until_s, f"its window should be full after {before} replies"
        beside_ms = [median_ms() for _ in range(3)]
        stop.set()
        stream.cancel()
    assert min(beside_ms) <= 1.2 * max(alone_ms)
