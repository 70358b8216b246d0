"""Versions come and go under load: no request fails, no caller is given another encoder's features unasked."""

from __future__ import annotations

import gc
import shutil
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from robossl_client._proto import inference_pb2 as pb
from robossl_client.client import EncoderClient
from robossl_client.errors import EncoderChangedError, ServingError, UnavailableError
from robossl_client.messages import Reply
from robossl_serving.infer import InferJob
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, build_tiny, calling, infer_request, server_process, serving, status_of

from robossl.encoders.inference import OnnxEncoder
from robossl.errors import InputError


def client_of(server: EncoderServer, **options: object) -> EncoderClient:
    return EncoderClient(f"127.0.0.1:{server.port}", **{"deadline_ms": 20_000.0} | options)


class Load:
    """Callers that ask without pause; what they got, and what failed."""

    def __init__(self, *clients: EncoderClient) -> None:
        self.replies: list[Reply] = []
        self.failures: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(client,)) for client in clients]

    def _ask(self, client: EncoderClient) -> None:
        while not self._stop.is_set():
            try:
                self.replies.append(client.encode(FRAMES[:1], deadline_ms=10_000))
            except ServingError as error:
                self.failures.append(error)
                return

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def wait_for(self, version: int) -> None:
        until_s = time.monotonic() + 60
        while self.replies[-1:] == [] or self.replies[-1].version != version:
            assert time.monotonic() < until_s and not self.failures, self.failures
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def one_version(tmp_path: Path, **settings: object) -> Iterator[tuple[Path, EncoderServer]]:
    models = tmp_path / "models"
    build_tiny(models, version=1)
    with serving(models, ServerSettings(port=0, **settings)) as server:
        yield models, server


def features_of(models: Path, version: int) -> np.ndarray:
    return OnnxEncoder(models / "tiny" / str(version), threads=1)(FRAMES[:1])["pooled"]


def test_thirty_versions_take_over_under_load_and_none_fails(tmp_path: Path) -> None:
    with (
        one_version(tmp_path, retire_seconds=0.0) as (models, server),
        client_of(server, follow=True) as first,
        client_of(server, follow=True, robot="arm") as second,
        calling(server) as call,
    ):
        with Load(first, second) as load:
            for version in range(2, 32):
                build_tiny(models, version=version)
                call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
                load.wait_for(version)
                server.repository.tend()
        assert load.failures == []
        assert len(server.repository.models()) <= 2
        assert {reply.version for reply in load.replies} == set(range(1, 32))
        wanted = {version: features_of(models, version) for version in (1, 17, 31)}
        for reply in load.replies:
            if reply.version in wanted:
                np.testing.assert_allclose(reply.features["pooled"], wanted[reply.version], atol=1e-5)


def test_a_pinned_caller_keeps_its_encoder_until_it_is_retired(tmp_path: Path) -> None:
    with one_version(tmp_path, retire_seconds=2.0) as (models, server), client_of(server) as pinned:
        wanted = pinned.encode(FRAMES[:1])
        build_tiny(models, version=2)
        server.repository.load("tiny")
        with client_of(server) as new:
            assert new.encode(FRAMES[:1]).version == 2
        until_s = time.monotonic() + 3.0
        while time.monotonic() < until_s:
            reply = pinned.encode(FRAMES[:1])
            assert reply.version == 1
            server.repository.tend()
        np.testing.assert_array_equal(reply.features["pooled"], wanted.features["pooled"])
        time.sleep(2.1)
        server.repository.tend()
        with pytest.raises(EncoderChangedError, match="the current one is version 2"):
            pinned.encode(FRAMES[:1])


def test_the_same_number_with_another_encoder_is_another_encoder(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), client_of(server) as pinned:
        server.repository.unload("tiny")
        shutil.rmtree(models / "tiny")
        build_tiny(models, version=1, layers=2)
        server.repository.load("tiny")
        with pytest.raises(EncoderChangedError):
            pinned.encode(FRAMES[:1])


@pytest.mark.parametrize("has_same_weights", [False, True])
def test_a_client_whose_pin_is_gone_hears_whether_the_weights_differ(tmp_path: Path, has_same_weights: bool) -> None:
    words = "the weights of the two are the same .*only the files differ" if has_same_weights else "the two differ, so"
    with one_version(tmp_path) as (models, server), client_of(server, robot="arm") as client, client.latest() as stream:
        digest = client.card.digest
        server.repository.unload("tiny")
        shutil.rmtree(models / "tiny")
        # The digest of a tiny encoder is that of its name and version.
        build_tiny(models, version=1 if has_same_weights else 2, layers=2)
        server.repository.load("tiny")
        with pytest.raises(EncoderChangedError, match=f"(?i){words}"):
            client.encode(FRAMES[:1])
        stream.send(FRAMES[:1])
        with pytest.raises(EncoderChangedError, match=f"(?i){words}"):
            stream.take(wait_ms=30_000)
        if has_same_weights:
            with client_of(server, digest=digest) as again:
                assert again.encode(FRAMES[:1]).digest == digest


def test_a_stream_that_ends_with_another_encoder_counts_its_frames(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), client_of(server, robot="arm") as client, client.latest() as stream:
        stream.send(FRAMES[:1])
        assert stream.take(wait_ms=30_000) is not None
        server.repository.unload("tiny")
        shutil.rmtree(models / "tiny")
        build_tiny(models, version=1, layers=2)
        server.repository.load("tiny")
        stream.send(FRAMES[:1])
        with pytest.raises(EncoderChangedError):
            stream.take(wait_ms=30_000)
        assert stream.num_dropped == stream.num_refused + stream.num_lost == 1


@pytest.mark.parametrize("is_told", [False, True])
def test_a_version_that_was_exported_anew_takes_over_from_the_one_in_memory(tmp_path: Path, is_told: bool) -> None:
    with one_version(tmp_path) as (models, server), client_of(server, follow=True) as client:
        build_tiny(models, version=2)
        server.repository.load("tiny")
        with client_of(server) as pinned:
            old = pinned.encode(FRAMES[:1])
            shutil.rmtree(models / "tiny" / "2")
            if is_told:
                server.repository.load("tiny")
            build_tiny(models, version=2, layers=2)
            (server.repository.load("tiny") if is_told else server.repository.look(again=False))
            new = client.encode(FRAMES[:1])
            assert (new.version, new.artefact != old.artefact) == (2, True)
            np.testing.assert_allclose(new.features["pooled"], features_of(models, 2), atol=1e-5)
            with pytest.raises(EncoderChangedError):
                pinned.encode(FRAMES[:1])
        (held,) = [model for model in server.repository.models() if model.card.version == 2]
        server.repository.load("tiny")
        assert held in server.repository.models(), "the same file is not loaded twice"


def _nan(models: Path) -> None:
    build_tiny(models, version=2, broken="nan")


def _constant(models: Path) -> None:
    build_tiny(models, version=2, broken="constant")


def _truncated(models: Path) -> None:
    path = build_tiny(models, version=2) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])


def _other_weights(models: Path) -> None:
    folder, other = build_tiny(models, version=2), build_tiny(models.parent / "other", version=3)
    card = (folder / "card.json").read_text()
    shutil.copy(other / "model.onnx", folder)
    from robossl.encoders.onnx_session import file_sha256

    old, new = card.split('"model_sha256": "')
    (folder / "card.json").write_text(f'{old}"model_sha256": "{file_sha256(folder / "model.onnx")}{new[64:]}')


def _misplaced(models: Path) -> None:
    shutil.move(build_tiny(models.parent / "other", version=3), models / "tiny" / "2")


def _without_card(models: Path) -> None:
    (build_tiny(models, version=2) / "card.json").unlink()


def _unknown(models: Path) -> None:
    build_tiny(models, version=2, broken="unknown")


def _unrunnable(models: Path) -> None:
    build_tiny(models, version=2, broken="unrunnable")


def _of_a_strange_type(models: Path) -> None:
    path = build_tiny(models, version=2) / "card.json"
    path.write_text(path.read_text().replace('"float32"', '"complex64"'))


@pytest.mark.parametrize(
    ("damage", "logged"),
    [
        (_nan, "centred cosine nan"),
        (_constant, "the same for every frame"),
        (_truncated, "is not the file its card.json describes"),
        (_other_weights, "holds other weights than its card.json describes"),
        (_misplaced, "holds tiny version 3"),
        (_without_card, "cannot read the card"),
        (_unknown, "onnxruntime cannot open"),
        (_unrunnable, "cannot be opened ("),
        (_of_a_strange_type, "cannot be opened ('complex64')"),
    ],
)
def test_a_version_that_fails_its_checks_changes_nothing(
    damage: object, logged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with one_version(tmp_path) as (models, server), client_of(server) as client, calling(server) as call:
        damage(models)
        with Load(client) as load:
            code, said = status_of(
                lambda: call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
            )
            load.wait_for(1)
        assert load.failures == []
        assert code == "FAILED_PRECONDITION"
        assert "version 2 of tiny failed its checks" in said
        assert str(tmp_path) not in said
        assert any(logged in str(getattr(record, "reason", "")) for record in caplog.records)
        rows = call("RepositoryIndex", pb.RepositoryIndexRequest()).models
        assert [(row.version, row.state) for row in rows] == [("1", "READY"), ("2", "UNAVAILABLE")]
        assert rows[1].reason == "failed its checks; the server's log says why"


def test_rolling_back_is_removing_the_newer_version(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), client_of(server, follow=True) as client:
        with Load(client) as load:
            for _ in range(10):
                build_tiny(models, version=2)
                server.repository.load("tiny")
                load.wait_for(2)
                shutil.rmtree(models / "tiny" / "2")
                server.repository.load("tiny")
                load.wait_for(1)
        assert load.failures == []


def test_new_versions_are_found_when_told_to_look(tmp_path: Path) -> None:
    with one_version(tmp_path, poll_seconds=0.1) as (models, server), client_of(server, follow=True) as client:
        build_tiny(models / ".aside", version=2)
        (models / ".aside" / "tiny" / "2").rename(models / "tiny" / "2")
        with Load(client) as load:
            load.wait_for(2)


def test_a_refused_version_is_looked_at_again_when_it_has_changed_or_when_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with one_version(tmp_path) as (models, server), client_of(server, follow=True) as client:
        build_tiny(models, version=2, broken="unrunnable")
        build_tiny(models, version=1, name="zzz")
        for again, num_refused in ((False, 1), (False, 1), (True, 2)):
            server.repository.look(again=again)
            assert [record.message for record in caplog.records].count("refused") == num_refused
            assert client.encode(FRAMES[:1]).version == 1
        assert [model.card.name for model in server.repository.models()] == ["tiny", "zzz"], "those after it are found"
        shutil.rmtree(models / "tiny" / "2")
        build_tiny(models, version=2)
        server.repository.look(again=False)
        assert client.encode(FRAMES[:1]).version == 2
        assert [row.reason for row in server.repository.index()] == ["", "", ""]


def test_an_unloaded_model_stays_away_until_it_is_loaded(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), calling(server) as call:
        call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="tiny"))
        build_tiny(models, version=2)
        for again in (False, True):
            server.repository.look(again=again)
            assert server.repository.models() == []
        call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
        build_tiny(models, version=3)
        server.repository.look(again=False)
        assert call("ModelInfer", infer_request()).model_version == "3"


def test_a_version_that_cannot_be_opened_does_not_end_a_server_told_to_look(tmp_path: Path) -> None:
    models = tmp_path / "models"
    build_tiny(models, version=1)
    with (
        server_process(models) as (process, port),
        EncoderClient(f"127.0.0.1:{port}", deadline_ms=20_000, follow=True) as client,
    ):
        assert process.stderr is not None
        build_tiny(models, version=2, broken="unrunnable")
        process.send_signal(signal.SIGHUP)
        while '"refused"' not in (line := process.stderr.readline()):
            assert line, process.wait()
        assert client.encode(FRAMES[:1]).version == 1
        shutil.rmtree(models / "tiny" / "2")
        build_tiny(models, version=2)
        process.send_signal(signal.SIGHUP)
        while '"loaded"' not in (line := process.stderr.readline()):
            assert line, process.wait()
        until_s = time.monotonic() + 60
        while client.encode(FRAMES[:1]).version != 2:
            assert time.monotonic() < until_s


def test_a_damaged_only_model_and_an_empty_folder_are_errors_at_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no NAME/VERSION/model\.onnx"):
        EncoderServer(tmp_path, ServerSettings(port=0))
    _without_card(tmp_path / "models")
    with pytest.raises(InputError, match="cannot read the card"):
        EncoderServer(tmp_path / "models", ServerSettings(port=0))


def test_sigterm_answers_what_was_accepted(tmp_path: Path) -> None:
    models = tmp_path / "models"
    build_tiny(models, version=1, layers=8)
    serving = server_process(models, "--drain-seconds", "60")
    with serving as (process, port), EncoderClient(f"127.0.0.1:{port}") as client:
        frames = np.zeros((1, 160, 160, 3), np.uint8)
        message = client._pin.request(frames, camera="", frame_id="1", captured_s=0.0)
        arm = EncoderClient(f"127.0.0.1:{port}", robot="arm", deadline_ms=60_000)  # its reply is taken after the calls'
        with arm as robot, robot.latest() as stream:
            stream.send(frames)
            assert stream.take(wait_ms=30_000) is not None
            calls = [client._infer.future(message, timeout=30) for _ in range(12)]
            stream.send(frames)
            Raw(client._channel)(
                "ServerLive", pb.ServerLiveRequest()
            )  # sent after them on one connection: answered, they have been accepted
            calls[0].result()
            process.send_signal(signal.SIGTERM)
            assert [call.result().model_version for call in calls] == ["1"] * 12
            reply = stream.take(wait_ms=30_000)
            assert reply is not None
        assert process.wait(timeout=60) == 0
        assert process.stdout.read().splitlines() == ["draining"]
        with pytest.raises(UnavailableError):
            client.encode(FRAMES, deadline_ms=300)


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_killed_server_is_found_again_within_seconds(tmp_path: Path, is_shared: bool) -> None:
    models = tmp_path / "models"
    build_tiny(models, version=1)
    options = ["--shared-memory"] if is_shared else []
    with server_process(models, *options) as (process, port):
        client = EncoderClient(f"127.0.0.1:{port}", robot="arm", shared_memory=is_shared)
        streams = [client.latest(camera=str(number)) for number in range(8)]
        for stream in streams:
            stream.send(FRAMES[:1])
            assert stream.take(wait_ms=30_000) is not None
        process.kill()
        process.wait()
        for stream in streams:
            stream.send(FRAMES[:1])
        with pytest.raises(UnavailableError):
            client.encode(FRAMES[:1], deadline_ms=300)
    with server_process(models, "--port", str(port), *options):
        ready_s = time.monotonic()
        assert client.encode(FRAMES[:1], deadline_ms=30_000).version == 1
        assert time.monotonic() - ready_s < 5
        for number, stream in enumerate(streams):
            captured_s = time.monotonic()
            reply = None
            while reply is None or reply.age_s > time.monotonic() - captured_s + 0.001:  # of a frame before the kill
                assert time.monotonic() - ready_s < 5 + number
                stream.send(FRAMES[:1])
                reply = stream.take(wait_ms=100)
        for stream in streams:
            stream.close()
        client.close()


def test_a_request_that_meets_a_closing_encoder_is_refused_at_once(tiny_models: Path) -> None:
    """Between finding its model and running, the server may shut down; no thread tries again and again."""
    with serving(tiny_models) as server, calling(server) as call:
        server.repository.models()[0].executor.close()
        code, reason = status_of(lambda: call("ModelInfer", infer_request()))
    assert (code, reason) == ("UNAVAILABLE", "the server is shutting down; connect again")


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), pytest.raises(OSError, match="it is taken"):
        EncoderServer(models, ServerSettings(port=server.port))


def test_a_model_can_be_asked_by_version(tmp_path: Path) -> None:
    with one_version(tmp_path) as (models, server), calling(server) as call:
        build_tiny(models, version=2)
        server.repository.load("tiny")
        assert call("ModelInfer", infer_request(version="1")).model_version == "1"
        assert call("ModelInfer", infer_request()).model_version == "2"
        versions = call("ModelMetadata", pb.ModelMetadataRequest(name="tiny")).versions
        assert list(versions) == ["1", "2"]


def test_a_retired_version_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    def come_true(check: Callable[[], bool]) -> bool:
        until_s = time.monotonic() + 60
        while not check() and time.monotonic() < until_s:
            time.sleep(0.02)
        return check()

    with (
        one_version(tmp_path, retire_seconds=0.0) as (models, server),
        client_of(server, follow=True, robot="arm") as client,
        client.latest() as stream,
    ):
        session = weakref.ref(server.repository.models()[0]._session)
        gc.collect()
        gc.disable()  # its turn may come after minutes
        try:
            for _ in range(5):
                stream.send(FRAMES[:1])
                assert stream.take(wait_ms=30_000) is not None
            assert come_true(lambda: not [each for each in gc.get_objects() if type(each) is InferJob])
            build_tiny(models, version=2)
            server.repository.load("tiny")
            server.repository.tend()
            assert come_true(lambda: session() is None)
        finally:
            gc.enable()
