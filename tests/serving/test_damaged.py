"""Damaged frames of a camera are dropped and counted; what a stream refuses shows in metrics and log."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from dear_images import many_scans
from PIL import Image
from robossl_client.client import EncoderClient
from robossl_client.errors import RequestError
from robossl_client.latest import Latest
from robossl_client.stream import MAX_REFUSED
from robossl_serving.limits import Limits
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, calling, eventually, infer_request, serving

JPEG = simplejpeg.encode_jpeg(FRAMES[0])


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


SIZE_AT = JPEG.index(b"\xff\xc0") + 5  # of the frame header: height, width
DAMAGED = {
    "half": JPEG[: len(JPEG) // 2],
    "header": JPEG[:20],
    "one-byte": JPEG[:200] + b"\xff\xd9" + JPEG[202:],
    "size": JPEG[:SIZE_AT] + (30_000).to_bytes(2, "big") * 2 + JPEG[SIZE_AT + 4 :],
    "empty": b"",
    "png": _png(FRAMES[0])[:200],
    "png-header": _png(FRAMES[0])[:20],
    "scans": many_scans(64, num_scans=100),
}


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


def connect(server: EncoderServer, *, robot: str = "arm", **options: bool) -> EncoderClient:
    """Allow a slow machine enough time for every frame."""
    return EncoderClient(f"127.0.0.1:{server.port}", robot=robot, deadline_ms=60_000, **options)


def send_damaged(stream: Latest, image: bytes, times: int) -> None:
    """Each once the one before is dropped."""
    for _ in range(times):
        before = stream.num_dropped
        stream.send([image])
        eventually(lambda before=before: stream.num_dropped > before or stream._failure is not None)


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_image_is_dropped_and_counted(server: EncoderServer, kind: str) -> None:
    with connect(server) as client, client.latest(camera=kind) as stream:
        for _ in range(2):  # the first frame of all too
            send_damaged(stream, DAMAGED[kind], 1)
            stream.send([JPEG])
            assert stream.take(wait_ms=30_000) is not None
        assert stream.num_dropped == 2


@pytest.mark.parametrize("is_shared", [False, True])
def test_garbage_is_dropped_once_a_stream_was_served(server: EncoderServer, is_shared: bool) -> None:
    with (
        connect(server, shared_memory=is_shared) as client,
        client.latest(camera="garbage") as stream,
    ):
        for _ in range(2):
            stream.send([JPEG])
            assert stream.take(wait_ms=30_000) is not None
            send_damaged(stream, b"\x00" * 500, 2)
        assert stream.num_dropped == 4


def test_a_stream_ends_when_many_images_in_a_row_are_damaged(server: EncoderServer) -> None:
    with connect(server) as client, client.latest(camera="broken") as stream:
        send_damaged(stream, DAMAGED["half"], MAX_REFUSED - 1)
        stream.send([JPEG])
        assert stream.take(wait_ms=30_000) is not None
        send_damaged(stream, DAMAGED["half"], MAX_REFUSED - 1)
        stream.send([DAMAGED["half"]])
        with pytest.raises(RequestError, match="an image is damaged"):
            stream.take(wait_ms=30_000)


def refused(server: EncoderServer, status: str) -> float:
    return server._metrics.registry.get_sample_value("robossl_refused_total", {"status": status}) or 0.0


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (infer_request(FRAMES[:1], robot="arm", camera="wrist", age_us=-1), "INVALID_ARGUMENT"),
        (infer_request(FRAMES[:1], model="other", robot="arm", camera="wrist"), "NOT_FOUND"),
        (infer_request(FRAMES[:1], robot="arm", camera="wrist", artefact="another"), "FAILED_PRECONDITION"),
    ],
    ids=["parameter", "model", "pin"],
)
def test_what_a_stream_refuses_is_counted_and_logged(
    server: EncoderServer, caplog: pytest.LogCaptureFixture, message: object, status: str
) -> None:
    eventually(lambda: len(server.streams) == 0)
    caplog.clear()  # earlier streams log as they end
    before = refused(server, status)
    began_s = time.monotonic()
    with caplog.at_level(logging.WARNING, "robossl.serving"), calling(server) as call:
        replies = list(call.stream(iter([message] * 40)))
        eventually(lambda: len(server.streams) == 0)
    assert len(replies) == 40
    assert refused(server, status) == before + 40
    lines = [record for record in caplog.records if record.message == "refused in a stream"]
    assert lines[0].times == 1, "the first at once"
    assert sum(line.times for line in lines) == 40
    assert len(lines) <= 2 + (time.monotonic() - began_s) / 10, "the others in one line at the end, or every 10 s"
    assert {(line.status, line.robot, line.camera) for line in lines} == {(status, "arm", "wrist")}
    assert all(line.peer and line.reason for line in lines)


def test_frames_that_lose_to_newer_ones_are_counted_but_not_logged(
    server: EncoderServer, caplog: pytest.LogCaptureFixture
) -> None:
    eventually(lambda: len(server.streams) == 0)
    caplog.clear()
    before = refused(server, "DEADLINE_EXCEEDED")
    with caplog.at_level(logging.WARNING, "robossl.serving"), calling(server) as call:
        late = infer_request(FRAMES[:1], robot="arm", timeout=1)
        replies = list(call.stream(iter([late])))
    assert replies[0].infer_response.parameters["status"].string_param == "DEADLINE_EXCEEDED"
    assert refused(server, "DEADLINE_EXCEEDED") == before + 1
    assert not caplog.records


def test_more_robots_than_64_cameras_are_served_at_a_time(tiny_models: Path) -> None:
    with serving(tiny_models, ServerSettings(port=0)) as server:
        clients = [connect(server, robot=f"robot {number}") for number in range(23)]
        streams = [client.latest(camera=camera) for client in clients for camera in ("left", "right", "wrist")]
        for stream in streams:
            stream.send(FRAMES[:1])
        for stream in streams:
            eventually(lambda stream=stream: stream.take() is not None or (stream.send(FRAMES[:1]) or False))
        assert len(server.streams) == 69 < Limits().streams
        for stream in streams:
            stream.close()
        for client in clients:
            client.close()
