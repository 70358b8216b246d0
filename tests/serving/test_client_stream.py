"""Streams of newest frames: no reply past its deadline, what every dropped frame is counted as, and how they end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from robossl_client.client import EncoderClient
from robossl_client.errors import RequestError, ServerFailedError
from robossl_client.stream import MAX_REFUSED
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Holder, eventually, freeze, server_process, serving

DAMAGED = simplejpeg.encode_jpeg(FRAMES[0])[:20] + b"\xff" * 100


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


def connect(server: EncoderServer, **options: object) -> EncoderClient:
    return EncoderClient(f"127.0.0.1:{server.port}", **{"robot": "arm", "deadline_ms": 20_000.0} | options)


def test_a_reply_past_the_deadline_is_dropped_and_counted(server: EncoderServer) -> None:
    with connect(server, deadline_ms=400.0) as client, client.latest() as stream:
        with Holder(server) as holder:
            stream.send(FRAMES[:1])
            assert holder.entered.wait(60)
            stream.send(FRAMES[1:2])
            holder.wait_for(1)
            time.sleep(0.5)
        # The first ran, but its reply is too old; the second was not run.
        eventually(lambda: stream.num_late == 2)
        assert stream.take(wait_ms=100) is None
        assert (stream.num_replaced, stream.num_dropped) == (0, 2)
        stream.send(FRAMES[:1])
        eventually(lambda: stream.take() is not None or stream.send(FRAMES[:1]))


def test_a_reply_that_grows_old_before_it_is_taken_is_dropped(server: EncoderServer) -> None:
    with connect(server, deadline_ms=2_000.0) as client, client.latest() as stream:
        stream.send(FRAMES[:1])
        eventually(lambda: stream._reply is not None)
        time.sleep(2.0)
        assert stream.take() is None
        assert (stream.num_late, stream.num_dropped) == (1, 1)


def test_a_reply_that_a_newer_one_overtakes_is_counted(server: EncoderServer) -> None:
    with connect(server) as client, client.latest() as stream:
        for number in range(3):
            stream.send(FRAMES[:1])
            eventually(lambda number=number: stream._newest_id == number + 1)
        assert (stream.num_replaced, stream.num_dropped) == (2, 2)
        assert stream.take() is not None and stream.take() is None
        assert stream.num_dropped == 2, "the reply that was taken is in no count"


def test_the_age_of_a_reply_is_that_when_it_is_taken(server: EncoderServer) -> None:
    with connect(server) as client, client.latest() as stream:
        captured_s = time.monotonic()
        stream.send(FRAMES[:1], captured_s=captured_s)
        eventually(lambda: stream._reply is not None)
        time.sleep(0.3)
        reply = stream.take()
        assert reply is not None
        assert 0.3 <= reply.age_s <= time.monotonic() - captured_s


def test_a_frame_that_is_late_already_is_not_sent(server: EncoderServer) -> None:
    with connect(server, deadline_ms=200.0) as client, client.latest() as stream:
        stream.send(FRAMES[:1], captured_s=time.monotonic() - 0.3)
        eventually(lambda: stream.num_late == 1)
        assert stream.num_replaced == 0


def test_without_a_deadline_a_reply_may_be_a_second_old(server: EncoderServer) -> None:
    with connect(server, deadline_ms=None) as client, client.latest() as stream:
        stream.send(FRAMES[:1], captured_s=time.monotonic() - 1.1)
        eventually(lambda: stream.num_late == 1)
        assert stream.take() is None


def test_no_reply_of_a_stopped_server_is_older_than_the_deadline(tiny_models: Path) -> None:
    ages_s, deadline_s = [], 0.5
    with (
        server_process(tiny_models) as (process, port),
        EncoderClient(f"127.0.0.1:{port}", robot="arm", deadline_ms=1e3 * deadline_s) as client,
        client.latest() as stream,
    ):

        def drive(until: object) -> None:
            until_s = time.monotonic() + 60
            while not until():
                assert time.monotonic() < until_s
                stream.send(FRAMES[:1])
                reply = stream.take(wait_ms=2)
                if reply is not None:
                    ages_s.append(reply.age_s)

        drive(lambda: len(ages_s) >= 5)
        freeze(process)
        stopped_s = time.monotonic()
        drive(lambda: time.monotonic() > stopped_s + 1.0)
        process.send_signal(signal.SIGCONT)
        num_before = len(ages_s)
        drive(lambda: len(ages_s) > num_before + 5)
        assert max(ages_s) <= deadline_s
        assert stream.num_connections == 1
        assert stream.num_dropped == stream.num_late + stream.num_replaced


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_damaged_frame_is_counted_and_the_stream_goes_on(server: EncoderServer, is_shared: bool) -> None:
    good = [simplejpeg.encode_jpeg(FRAMES[0])]
    with connect(server, shared_memory=is_shared) as client, client.latest() as stream:
        for number, bad in enumerate(([DAMAGED], [b"no image"], [good[0], good[0][:30]]), 1):
            stream.send(bad)
            eventually(lambda number=number: stream.num_refused == number)
            stream.send(good)
            assert stream.take(wait_ms=20_000) is not None
        assert (stream.num_dropped, stream.num_connections) == (3, 1)


@pytest.mark.parametrize("is_shared", [False, True])
def test_many_damaged_frames_in_a_row_end_a_stream(server: EncoderServer, is_shared: bool) -> None:
    with connect(server, shared_memory=is_shared) as client, client.latest() as stream:
        for number in range(1, MAX_REFUSED):
            stream.send([b"no image"])
            eventually(lambda number=number: stream.num_refused == number)
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=20_000) is not None, "one that is served begins the count anew"
        with pytest.raises(RequestError, match=r"30 frames in a row were refused; the last one: .* JPEG nor a PNG"):
            for number in range(1, MAX_REFUSED + 1):
                stream.send([b"no image"])
                eventually(lambda number=number: stream.num_refused == MAX_REFUSED - 1 + number)
            stream.take(wait_ms=20_000)
        with pytest.raises(RequestError, match="30 frames in a row"):
            stream.send(FRAMES[:1])


def test_a_frame_that_the_encoder_fails_on_is_counted_too(server: EncoderServer) -> None:
    (model,) = server.repository.models()
    run = model.executor._run

    def fail(*_: object) -> object:
        raise RuntimeError("out of memory")

    with connect(server) as client, client.latest() as stream:
        model.executor._run = fail
        try:
            stream.send(FRAMES[:1])
            eventually(lambda: stream.num_refused == 1)
        finally:
            model.executor._run = run
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=20_000) is not None
        with pytest.raises(ServerFailedError, match="30 frames in a row"):
            model.executor._run = fail
            try:
                for number in range(2, MAX_REFUSED + 3):
                    stream.send(FRAMES[:1])
                    eventually(lambda number=number: stream.num_refused == number)
            finally:
                model.executor._run = run


def test_what_is_no_frame_is_said_at_once_to_who_sends_it(server: EncoderServer) -> None:
    with connect(server) as client, client.latest() as stream:
        for bad in (FRAMES[0], FRAMES[:1].astype(np.float32), b"jpeg", None):
            with pytest.raises(RequestError, match="frames must be uint8 RGB"):
                stream.send(bad)
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=20_000) is not None
        assert stream.num_dropped == 0


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_frame_is_as_it_was_when_it_was_sent(server: EncoderServer, is_shared: bool) -> None:
    """A camera driver fills one buffer again and again, while frames of it still wait to leave."""
    buffer = np.empty_like(FRAMES[:1])
    with connect(server, shared_memory=is_shared) as client, client.latest() as stream:
        black, white = (client.encode(np.full_like(buffer, value)).features["pooled"] for value in (0, 255))
        assert np.abs(white - black).max() > 0.1
        for _ in range(30):
            buffer[:] = 0
            stream.send(buffer)
            buffer[:] = 255
            reply = stream.take(wait_ms=20_000)
            assert reply is not None
            np.testing.assert_allclose(reply.features["pooled"], black, atol=1e-4)
        image = bytearray(simplejpeg.encode_jpeg(np.zeros_like(FRAMES[0])))
        images = [memoryview(image)]
        stream.send(images)
        image[:] = bytes(len(image))
        images.clear()
        reply = stream.take(wait_ms=20_000)
        assert reply is not None
        np.testing.assert_allclose(reply.features["pooled"], black, atol=1e-4)


def test_frames_are_counted_by_what_became_of_them(server: EncoderServer) -> None:
    with connect(server) as client, client.latest() as stream:
        with Holder(server) as holder:
            stream.send(FRAMES[:1])
            assert holder.entered.wait(60)
            stream.send(FRAMES[:1])
            holder.wait_for(1)
            stream.send(FRAMES[:1])
            eventually(lambda: stream.num_replaced == 1)
        assert (stream.num_late, stream.num_refused, stream.num_lost, stream.num_dropped) == (0, 0, 0, 1)


def test_frames_on_their_way_are_lost_with_the_connection(tiny_models: Path) -> None:
    with (
        server_process(tiny_models) as (process, port),
        EncoderClient(f"127.0.0.1:{port}", robot="arm", deadline_ms=20_000) as client,
        client.latest() as stream,
    ):
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=30_000) is not None
        freeze(process)
        stream.send(FRAMES[:1])
        eventually(lambda: stream._captured_s)
        process.kill()
        eventually(lambda: stream.num_lost == 1)
        assert stream.num_dropped == 1


@pytest.mark.parametrize("closed", ["stream", "client"])
def test_a_closed_stream_says_so(server: EncoderServer, closed: str) -> None:
    with connect(server) as client:
        stream = client.latest()
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=20_000) is not None
        (stream if closed == "stream" else client).close()
        for use in (lambda: stream.send(FRAMES[:1]), stream.take, lambda: stream.take(wait_ms=60_000)):
            with pytest.raises(RequestError, match="the stream is closed; open another one"):
                use()
        stream.close()
    for use in (lambda: client(FRAMES), lambda: client.encode(FRAMES), client.latest):
        with pytest.raises(RequestError, match="the client is closed"):
            use()
    client.close()


def test_who_waits_for_a_reply_hears_that_the_stream_was_closed(server: EncoderServer) -> None:
    said: list[Exception] = []

    def wait() -> None:
        try:
            stream.take(wait_ms=60_000)
        except RequestError as error:
            said.append(error)

    with connect(server) as client, client.latest() as stream:
        thread = threading.Thread(target=wait)
        thread.start()
        stream.close()
        thread.join(30)
        assert [str(error) for error in said] == ["the stream is closed; open another one with latest()"]
