"""The client against a real server: it is a `FrameEncoder`, keeps to its encoder, and finds a server that was away."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard
from robossl_client.client import EncoderClient
from robossl_client.errors import (
    DeadlineError,
    EncoderChangedError,
    OverloadedError,
    RequestError,
    ServerFailedError,
    SupersededError,
    UnavailableError,
    UnknownModelError,
)
from robossl_client.latest import Latest
from robossl_client.messages import Pin
from robossl_serving.limits import Limits
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Holder, build_tiny, copy_version, serving

from robossl.encoders.inference import FrameEncoder, load_encoder
from robossl.exporting.parity import natural_frames


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


@pytest.mark.parametrize(("datatype", "size"), [("FP32", 0), ("FP32", 12), ("FP12", 16)])
def test_a_reply_that_is_not_whole_is_said(tiny_models: Path, datatype: str, size: int) -> None:
    card = EncoderCard.from_json((tiny_models / "tiny" / "1" / "card.json").read_text())
    reply = pb.ModelInferResponse(model_name="tiny", model_version="1", raw_output_contents=[bytes(size)])
    reply.outputs.add(name="pooled", datatype=datatype, shape=[1, 4])
    with pytest.raises(ServerFailedError, match="bytes do not fit its types and shapes"):
        Pin(card, None, "1", None, ("pooled",)).reply(reply, captured_s=0.0)


@pytest.mark.parametrize(("robot", "allowed_s"), [("arm", 1), (None, 60)])
def test_a_robot_waits_a_second_and_a_batch_a_minute_unless_told(
    tiny_models: Path, robot: str | None, allowed_s: float
) -> None:
    card = EncoderCard.from_json((tiny_models / "tiny" / "1" / "card.json").read_text())
    pin = Pin(card, None, "1", robot, ("pooled",))
    assert (pin.allowed_s(None, None), pin.allowed_s(None, 7000), pin.allowed_s(20, 7000)) == (allowed_s, 7, 0.02)


def connect(server: EncoderServer, **options: object) -> EncoderClient:
    return EncoderClient(f"127.0.0.1:{server.port}", **{"deadline_ms": 20_000.0} | options)


def test_it_is_an_encode(server: EncoderServer, tiny_models: Path) -> None:
    local: FrameEncoder = load_encoder(tiny_models / "tiny")
    with connect(server) as client:
        served: FrameEncoder = client
        assert served.card == local.card
        frames = natural_frames(70, (20, 30), seed=0)
        wanted, got = local(frames), served(frames)
        assert got.keys() == wanted.keys()
        for name in wanted:
            np.testing.assert_allclose(got[name], wanted[name], atol=1e-5)


def test_a_reply_says_by_whom_and_where_the_time_went(server: EncoderServer) -> None:
    with connect(server, robot="arm", outputs=("pooled",)) as client:
        captured_s = time.monotonic() - 0.05
        reply = client.encode(FRAMES[:1], camera="wrist", captured_s=captured_s)
        assert list(reply.features) == ["pooled"]
        assert (reply.model, reply.version, reply.digest) == ("tiny", 2, client.card.digest)
        assert reply.artefact == client.card.model_sha256
        assert 0.05 < reply.age_s < 5
        assert 0 < reply.infer_us <= reply.server_us < 5e6


def test_shared_memory_and_jpeg_give_the_same_features(server: EncoderServer) -> None:
    with connect(server) as plain, connect(server, shared_memory=True) as shared:
        wanted = plain.encode(FRAMES).features["pooled"]
        for frames in (FRAMES[:1], FRAMES, FRAMES[:1]):
            np.testing.assert_array_equal(shared.encode(frames).features["pooled"], wanted[: len(frames)])
        jpegs = [simplejpeg.encode_jpeg(frame, quality=98) for frame in FRAMES]
        for client in (plain, shared):
            from_jpeg = client.encode(jpegs).features["pooled"]
            assert 0 < np.abs(from_jpeg - wanted).max() < 0.1 * np.abs(wanted).max()
    assert not list(Path("/dev/shm").glob(f"robossl-{os.getpid()}-*"))


def test_a_shared_region_that_the_server_lost_is_registered_anew(server: EncoderServer) -> None:
    with connect(server, shared_memory=True) as client:
        wanted = client.encode(FRAMES).features["pooled"]
        assert server._memory is not None
        server._memory.unregister("")
        np.testing.assert_array_equal(client.encode(FRAMES).features["pooled"], wanted)


def test_cameras_go_together(server: EncoderServer) -> None:
    with connect(server, robot="arm") as client:
        wanted = client.encode(FRAMES).features["pooled"]
        got = client.encode_cameras({"wrist": FRAMES[0], "front": FRAMES[2]})
        np.testing.assert_allclose(got["wrist"]["pooled"], wanted[:1], atol=1e-5)
        np.testing.assert_allclose(got["front"]["pooled"], wanted[2:], atol=1e-5)
        with pytest.raises(RequestError, match=r"of one size, got wrist \(60, 80, 3\), front \(9, 9, 3\)"):
            client.encode_cameras({"wrist": FRAMES[0], "front": np.zeros((9, 9, 3), np.uint8)})


def test_what_can_be_fixed_is_said(server: EncoderServer) -> None:
    with connect(server) as client:
        with pytest.raises(RequestError, match=r"frames must be uint8 RGB .* got float32 \(1, 4, 4, 3\)"):
            client(np.zeros((1, 4, 4, 3), np.float32))
        with pytest.raises(RequestError, match="neither a JPEG nor a PNG"):
            client.encode([b"no image"])
        with pytest.raises(RequestError, match="belongs to a robot"):
            client.latest()
    with pytest.raises(UnknownModelError, match="no model 'other' is loaded; loaded are tiny"):
        connect(server, model="other")
    with pytest.raises(RequestError, match="no output 'cls'; choose from pooled, dense"):
        connect(server, outputs=("cls",))
    with pytest.raises(EncoderChangedError, match="wanted are abcabc"):
        connect(server, digest="abcabc")
    with pytest.raises(UnavailableError):
        EncoderClient("127.0.0.1:1", connect_ms=300)


def test_an_impossible_deadline_is_not_run(server: EncoderServer) -> None:
    with connect(server) as client, pytest.raises(DeadlineError):
        client.encode(natural_frames(64, (64, 64), seed=0), deadline_ms=1)


def _ask(client: EncoderClient, outcomes: dict[str, object], name: str, **options: object) -> threading.Thread:
    def ask() -> None:
        try:
            outcomes[name] = client.encode(FRAMES[:1], deadline_ms=30_000, **options)
        except Exception as error:
            outcomes[name] = error

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_newer_frame_takes_the_place_of_the_one_that_waits(server: EncoderServer) -> None:
    outcomes: dict[str, object] = {}
    with connect(server, robot="arm") as client:
        with Holder(server) as holder:
            threads = [_ask(client, outcomes, "running")]
            assert holder.entered.wait(60)
            threads.append(_ask(client, outcomes, "older"))
            holder.wait_for(1)
            threads.append(_ask(client, outcomes, "newer"))
            threads[1].join(60)
            threads.append(_ask(client, outcomes, "other camera", camera="wrist"))
            holder.wait_for(2)
        for thread in threads:
            thread.join(60)
    assert isinstance(outcomes["older"], SupersededError)
    assert [outcomes[name].superseded for name in ("running", "newer", "other camera")] == [0, 1, 0]


def test_a_cancelled_call_is_never_run(server: EncoderServer) -> None:
    with connect(server) as client:
        before = server.repository.models()[0].statistics.to_message().execution_count
        with Holder(server) as holder:
            outcomes: dict[str, object] = {}
            thread = _ask(client, outcomes, "running")
            assert holder.entered.wait(60)
            message = client._pin.request(FRAMES, camera="", frame_id="9", captured_s=0.0)
            waiting = [client._infer.future(message, timeout=30) for _ in range(5)]
            holder.wait_for(5)
            for call in waiting:
                call.cancel()
            holder.wait_for(0)
        thread.join(60)
    assert server.repository.models()[0].statistics.to_message().execution_count == before + 1


def test_more_than_the_queue_holds_is_refused_at_once(tiny_models: Path, tmp_path: Path) -> None:
    from robossl_serving.model import SessionSettings

    models = copy_version(tiny_models, tmp_path / "models", 1)
    settings = ServerSettings(port=0, session=SessionSettings(max_waiting=2), limits=Limits(waiting=2))
    with serving(models, settings) as server, connect(server) as client:
        outcomes: dict[str, object] = {}
        with Holder(server) as holder:
            threads = [_ask(client, outcomes, "running")]
            assert holder.entered.wait(60)
            threads += [_ask(client, outcomes, str(number)) for number in range(3)]
            holder.wait_for(2)
            until_s = time.monotonic() + 60
            while not outcomes and time.monotonic() < until_s:
                time.sleep(0.01)
            assert [type(each) for each in outcomes.values()] == [OverloadedError]
        for thread in threads:
            thread.join(60)


def test_a_stream_gives_the_newest_reply(server: EncoderServer, tiny_models: Path) -> None:
    wanted = load_encoder(tiny_models / "tiny")(FRAMES)["pooled"]
    with connect(server, robot="arm") as client, client.latest(camera="wrist") as stream:
        for row in (0, 1, 2):
            stream.send(FRAMES[row : row + 1])
            reply = stream.take(wait_ms=30_000)
            assert reply is not None
            np.testing.assert_allclose(reply.features["pooled"], wanted[row : row + 1], atol=1e-5)
            assert reply.frame_id == str(row + 1)
        assert stream.take() is None
        assert stream.num_dropped == 0


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_stream_drops_what_is_not_the_newest(server: EncoderServer, tiny_models: Path, is_shared: bool) -> None:
    wanted = load_encoder(tiny_models / "tiny")(FRAMES)["pooled"]
    with connect(server, robot="arm", shared_memory=is_shared) as client, client.latest() as stream:
        with Holder(server) as holder:
            stream.send(FRAMES[:1])
            assert holder.entered.wait(60)
            for _ in range(20):
                stream.send(FRAMES[1:2])
                time.sleep(0.002)
            stream.send(FRAMES[2:])
            time.sleep(0.2)
        replies = []
        while not replies or replies[-1].frame_id != "22":
            reply = stream.take(wait_ms=30_000)
            assert reply is not None
            replies.append(reply)
        assert len(replies) <= 2, "the first, if it was taken before the last came, and the last"
        np.testing.assert_allclose(replies[-1].features["pooled"], wanted[2:], atol=1e-5)
        assert stream.num_dropped == 22 - len(replies), "a first reply that the last overtook counts too"


def test_a_late_reply_does_not_stand_before_the_next_one(server: EncoderServer, tiny_models: Path) -> None:
    with connect(server, robot="arm") as client, client.latest() as stream:
        with Holder(server) as holder:
            stream.send(FRAMES[:1])
            assert holder.entered.wait(60)
            assert stream.take(wait_ms=1) is None
        while stream._newest_id < 1:
            time.sleep(0.001)
        stream.send(FRAMES[1:2])
        reply = stream.take(wait_ms=30_000)
        assert reply is not None and reply.frame_id == "2"
        assert stream.num_replaced == 1
        with Holder(server) as holder:
            stream.send(FRAMES[2:])
            assert holder.entered.wait(60)
        while stream._newest_id < 3:
            time.sleep(0.001)
        with Holder(server) as holder:
            stream.send(FRAMES[:1])
            assert holder.entered.wait(60)
            late = stream.take(wait_ms=1)  # the time is up, and the older reply is better than none
            assert late is not None and late.frame_id == "3"


def answered(stream: Latest) -> bool:
    """Whether one of the frames sent within a minute is; a frame sent while a stream is made anew may be lost."""
    until_s = time.monotonic() + 60
    while time.monotonic() < until_s:
        stream.send(FRAMES[:1])
        if stream.take(wait_ms=2_000) is not None:
            return True
    return False


def test_a_stream_that_the_server_keeps_refusing_says_so(tiny_models: Path) -> None:
    with (
        serving(tiny_models, ServerSettings(port=0, limits=Limits(streams_per_client=1))) as server,
        connect(server, robot="arm") as client,
    ):
        for _ in range(5):  # one that was closed just now is in nobody's way
            with client.latest() as first:
                assert answered(first)
        with client.latest() as first, client.latest(camera="wrist") as second:
            with pytest.raises(OverloadedError, match="at most 1 streams of one client"):
                assert answered(first)
                second.take(wait_ms=10_000)
                first.take(wait_ms=10_000)
            with pytest.raises(OverloadedError):
                first.send(FRAMES[:1])
                second.send(FRAMES[:1])


def test_frames_that_are_too_large_for_a_stream_are_said(tiny_models: Path) -> None:
    large = np.zeros((1, 700, 700, 3), np.uint8)
    with (
        serving(tiny_models, ServerSettings(port=0, limits=Limits(message_bytes=2**20))) as server,
        connect(server, robot="arm") as client,
        client.latest() as stream,
    ):
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=30_000) is not None
        with pytest.raises(
            OverloadedError, match=r"has \d+ bytes, the server takes 1048576; send fewer or smaller frames"
        ):
            for _ in range(200):
                stream.send(large)
                stream.take(wait_ms=50)


@pytest.mark.parametrize("full", ["server", "folder"])
def test_a_stream_without_room_in_shared_memory_sends_bytes(tiny_models: Path, full: str) -> None:
    settings = ServerSettings(port=0, shared_memory=True, limits=Limits(regions=0 if full == "server" else 64))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (
        serving(tiny_models, settings) as server,
        connect(server, robot="arm", shared_memory=True) as client,
        client.latest() as stream,
    ):
        if full == "folder":
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, hard))
        try:
            for _ in range(3):
                stream.send(np.zeros((1, 500, 500, 3), np.uint8))
                assert stream.take(wait_ms=10_000) is not None
            if full == "folder":
                with pytest.raises(OverloadedError, match=r"no room for 3000000 bytes in shared memory \("):
                    client.encode(np.zeros((4, 500, 500, 3), np.uint8))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("loss", ["forgotten", "removed"])
def test_a_stream_makes_a_region_that_was_lost_anew(server: EncoderServer, loss: str) -> None:
    with connect(server, robot="arm", shared_memory=True) as client, client.latest() as stream:
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=30_000) is not None
        assert server._memory is not None
        (region,) = server._memory.regions()
        server._memory.unregister("") if loss == "forgotten" else Path("/dev/shm", region.key[1:]).unlink()
        stream.send(FRAMES[:1])
        until_s = time.monotonic() + 60
        while (reply := stream.take(wait_ms=100)) is None and time.monotonic() < until_s:
            stream.send(FRAMES[:1])
        assert reply is not None
        assert stream.num_connections == 1
        assert region.key not in [each.key for each in server._memory.regions() if loss == "forgotten"]


def test_a_call_does_not_wait_for_anothers_shared_memory_beyond_its_deadline(server: EncoderServer) -> None:
    outcomes: dict[str, object] = {}
    with connect(server, shared_memory=True) as client:
        with Holder(server) as holder:
            thread = _ask(client, outcomes, "running")
            assert holder.entered.wait(60)
            with pytest.raises(DeadlineError, match="still used its shared memory"):
                client.encode(FRAMES[:1], deadline_ms=200)
            assert outcomes == {}
        thread.join(60)


def _changing(server: EncoderServer, models: Path, *, times: int) -> None:
    """Let another version take over after the first run of the current one, so many times."""
    model = server.repository.find("tiny", "", None)
    run, version = model.executor._run, model.card.version + 1

    def run_and_change(*args: object) -> object:
        features = run(*args)
        model.executor._run = run
        if times:
            build_tiny(models, version=version)
            server.repository.load("tiny")
            _changing(server, models, times=times - 1)
        return features

    model.executor._run = run_and_change


def test_frames_of_one_array_are_of_one_encoder(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1)
    frames = natural_frames(70, (20, 30), seed=0)
    with serving(tmp_path) as server, connect(server, follow=True) as client:
        _changing(server, tmp_path, times=1)
        got = client(frames)["pooled"]
        np.testing.assert_allclose(got, load_encoder(tmp_path / "tiny" / "2")(frames)["pooled"], atol=1e-5)
        _changing(server, tmp_path, times=4)
        with pytest.raises(EncoderChangedError, match="changed twice"):
            client(frames)


def test_a_server_that_comes_back_is_found_again_and_another_encoder_is_noticed(
    tiny_models: Path, tmp_path: Path
) -> None:
    first = copy_version(tiny_models, tmp_path / "first", 1)
    second = copy_version(tiny_models, tmp_path / "second", 2)
    with serving(first) as server:
        port = server.port
        client = connect(server, robot="arm")
        stream = client.latest()
        wanted = client.encode(FRAMES).features["pooled"]
    settings = ServerSettings(port=port)
    with pytest.raises(UnavailableError):
        client.encode(FRAMES, deadline_ms=200)
    with serving(first, settings):
        np.testing.assert_array_equal(client.encode(FRAMES, deadline_ms=30_000).features["pooled"], wanted)
        stream.send(FRAMES[:1])
        until_s = time.monotonic() + 60
        while (reply := stream.take(wait_ms=100)) is None and time.monotonic() < until_s:
            stream.send(FRAMES[:1])
        assert reply is not None
        assert stream.num_connections >= 2
    with serving(second, settings):
        with pytest.raises(EncoderChangedError, match="no longer served"):
            client.encode(FRAMES, deadline_ms=30_000)
        with pytest.raises(EncoderChangedError):
            for _ in range(50):
                stream.send(FRAMES[:1])
                stream.take(wait_ms=100)
    stream.close()
    client.close()
