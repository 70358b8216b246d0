"""Which versions are loaded: by policy, by number, the newest good one where others fail; and what is said of it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import generate_latest
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard
from robossl_client.client import EncoderClient
from robossl_client.errors import EncoderChangedError, UnknownModelError
from robossl_serving.entry import IndexRow
from robossl_serving.health import HealthService
from robossl_serving.model import SessionSettings
from robossl_serving.repository import Repository
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Raw, build_tiny, calling, infer_request, serving, status_of

from robossl.errors import InputError
from robossl.exporting.triton_layout import check_config, new_version, triton_config


def build(models: Path, *versions: int, policy: str = "", damaged: tuple[int, ...] = (), name: str = "tiny") -> Path:
    """Versions of a model, some of them with a model.onnx that was cut off."""
    for version in versions:
        path = build_tiny(models, version=version, name=name) / "model.onnx"
        if version in damaged:
            path.write_bytes(path.read_bytes()[:-100])
    if policy:
        set_policy(models, policy, name=name)
    return models


def set_policy(models: Path, policy: str, *, name: str = "tiny") -> None:
    config = models / name / "config.pbtxt"
    config.write_text(re.sub("version_policy.*\n", "", config.read_text()) + f"version_policy: {{ {policy} }}\n")


@contextmanager
def served(models: Path, **settings: Any) -> Iterator[tuple[EncoderServer, Raw]]:
    with serving(models, ServerSettings(port=0, **settings)) as server, calling(server) as call:
        yield server, call


def load(call: Raw, version: int | str | None = None) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="tiny")
    if isinstance(version, int):
        request.parameters["version"].int64_param = version
    elif version is not None:
        request.parameters["version"].string_param = version
    call("RepositoryModelLoad", request)


def loaded(call: Raw) -> list[int]:
    """Loaded versions of the model, the current one last."""
    return list(map(int, call("ModelMetadata", pb.ModelMetadataRequest(name="tiny")).versions))


def health(server: EncoderServer, name: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        try:
            status = check(health_pb2.HealthCheckRequest(service=name), timeout=10).status
        except grpc.RpcError as error:
            return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(status))


def metrics(server: EncoderServer, name: str) -> dict[str, float]:
    """Values of a metric, by model and version."""
    text = generate_latest(server._metrics.registry).decode()
    pattern = rf'{name}{{model="(\w+)",version="(\d+)"}} (.*)'
    return {f"{model}/{version}": float(value) for model, version, value in re.findall(pattern, text)}


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == name]


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("", [4]),
        ("latest { num_versions: 1 }", [4]),
        ("latest { num_versions: 2 }", [3, 4]),
        ("latest { num_versions: 9 }", [1, 2, 3, 4]),
        ("all { }", [1, 2, 3, 4]),
        ("specific { versions: [ 1, 3 ] }", [1, 3]),
        ("specific { versions: [ 2 ] }", [2]),
        ("specific { versions: [ 2, 17 ] }", [2]),
    ],
)
def test_versions_are_loaded_by_policy(tmp_path: Path, policy: str, wanted: list[int]) -> None:
    with served(build(tmp_path, 1, 2, 3, 4, policy=policy), retire_seconds=0.0) as (server, call):
        server.repository.tend()
        assert sorted(loaded(call)) == wanted
        assert call("ModelInfer", infer_request()).model_version == str(wanted[-1])
        for version in wanted:
            assert call("ModelInfer", infer_request(version=str(version))).model_version == str(version)
        stated = call("ModelConfig", pb.ModelConfigRequest(name="tiny")).config.version_policy
        assert stated.WhichOneof("policy_choice") == (policy.split()[0] if policy else "latest")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("latest { num_versions: 0 }", "set num_versions to 1 or more"),
        ("latest { }", "set num_versions to 1 or more"),
        ("specific { }", "list at least one"),
        ("specific { versions: [ 7, 8 ] }", "names only versions 7, 8"),
        ("newest { }", "has an unknown version_policy; choose latest, all or specific"),
        ("", "has an unknown version_policy; choose latest, all or specific"),
        ("latest {", "config.pbtxt cannot be read"),
    ],
)
def test_a_policy_that_loads_nothing_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str, words: str
) -> None:
    models = build(tmp_path / "models", 1, policy="all { }")
    with served(models) as (server, call):
        set_policy(models, policy)
        for _ in range(2):
            server.repository.look(again=False)
        code, said = status_of(lambda: load(call))
        assert (code, said.split(";")[0]) == ("FAILED_PRECONDITION", "the config.pbtxt of tiny cannot be used")
        assert str(tmp_path) not in said
        (event,) = events(caplog, "refused")
        assert (event["model"], words in event["reason"]) == ("tiny", True)
        assert loaded(call) == [1], "what served serves on"
    with pytest.raises(InputError, match=words):
        EncoderServer(models, ServerSettings(port=0))


def test_a_changed_policy_is_taken_up(tmp_path: Path) -> None:
    models = build(tmp_path, 1, 2, 3)
    with served(models, retire_seconds=0.0) as (server, call):
        policies = {
            "all { }": [1, 2, 3],
            "specific { versions: 1 }": [1],
            "latest { num_versions: 1 }": [3],
        }
        for policy, wanted in policies.items():
            set_policy(models, policy)
            server.repository.look(again=False)
            server.repository.tend()
            assert sorted(loaded(call)) == wanted


def test_a_robot_that_pinned_the_older_version_is_served_after_a_restart(tmp_path: Path) -> None:
    models = build(tmp_path, 1)
    with served(models) as (server, _), EncoderClient(f"127.0.0.1:{server.port}") as client:
        pinned = client.encode(FRAMES[:1]).artefact
    build(models, 2)
    with served(models) as (_, call):
        code, said = status_of(lambda: call("ModelInfer", infer_request(artefact=pinned)))
        assert code == "FAILED_PRECONDITION"
        assert "no longer served: version 1 is in the repository, but not loaded" in said
        assert "`robossl load HOST:PORT tiny --version 1` (RepositoryModelLoad), or name it in version_policy" in said
        code, said = status_of(lambda: call("ModelInfer", infer_request(version="1")))
        assert code == "NOT_FOUND" and "robossl load HOST:PORT tiny --version 1" in said
        load(call, 1)  # the first thing that was said to help
        assert call("ModelInfer", infer_request(artefact=pinned)).model_version == "1"
    set_policy(models, "specific { versions: [ 1, 2 ] }")  # and the second
    with served(models) as (_, call):
        assert call("ModelInfer", infer_request(artefact=pinned)).model_version == "1"
        assert call("ModelInfer", infer_request()).model_version == "2"
    shutil.rmtree(models / "tiny" / "1")
    set_policy(models, "latest { num_versions: 1 }")
    with served(models) as (_, call):
        said = status_of(lambda: call("ModelInfer", infer_request(artefact=pinned)))[1]
        assert "no longer served, and not in the repository" in said


def test_a_pinned_version_that_is_damaged_is_to_be_mended_first(tmp_path: Path) -> None:
    models = build(tmp_path, 1, 2)
    with served(models) as (server, _), EncoderClient(f"127.0.0.1:{server.port}", follow=True) as client:
        pinned = client.encode(FRAMES[:1]).artefact
    (models / "tiny" / "2" / "model.onnx").write_bytes(b"")
    with served(models) as (server, call):
        said = status_of(lambda: call("ModelInfer", infer_request(artefact=pinned)))[1]
        assert "version 2 is in the repository" in said and "repair it first" in said
        target = f"127.0.0.1:{server.port}"
        with pytest.raises((EncoderChangedError, UnknownModelError)):
            EncoderClient(target, version=2).encode(FRAMES[:1])


@pytest.mark.parametrize("version", [1, "1"])
def test_a_version_loaded_by_number_holds_until_the_model_is_loaded_without_one(
    tmp_path: Path, version: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    models = build(tmp_path, 1, 2)
    with served(models, retire_seconds=0.0) as (server, call):
        load(call, version)
        (event,) = events(caplog, "rolled back")
        assert (event["model"], event["version"], event["before"]) == ("tiny", 1, 2)
        assert metrics(server, "robossl_model_current") == {"tiny/1": 1.0}
        build(models, 3)
        for again in (False, True):
            server.repository.look(again=again)
        server.repository.tend()
        assert loaded(call) == [1]
        load(call)
        assert call("ModelInfer", infer_request()).model_version == "3"
        load(call, 2)
        shutil.rmtree(models / "tiny" / "2")
        server.repository.look(again=False)
        assert call("ModelInfer", infer_request()).model_version == "3", "it is no longer there: back to the policy"


@pytest.mark.parametrize(
    ("version", "code", "words"),
    [
        (7, "NOT_FOUND", "version 7 of tiny is not in the repository; it holds 1, 2, 3"),
        (3, "FAILED_PRECONDITION", "version 3 of tiny failed its checks and is not served; version 2 is served"),
        ("9" * 5000, "INVALID_ARGUMENT", "the number of a version"),
        ("one", "INVALID_ARGUMENT", "the number of a version"),
        ("٣", "INVALID_ARGUMENT", "the number of a version"),
        ("", "INVALID_ARGUMENT", "the number of a version"),
        (-1, "INVALID_ARGUMENT", "the number of a version"),
        (2**63 - 1, "NOT_FOUND", "is not in the repository"),
    ],
)
def test_a_version_that_cannot_be_loaded_changes_nothing(
    tmp_path: Path, version: int | str, code: str, words: str
) -> None:
    with served(build(tmp_path, 1, 2, 3, damaged=(3,))) as (_, call):
        got = status_of(lambda: load(call, version))
        assert got[0] == code and words in got[1]
        assert loaded(call) == [2]


def test_load_takes_no_other_parameter_and_unload_none(tmp_path: Path) -> None:
    with served(build(tmp_path, 1)) as (_, call):
        for name in ("config", "file:1/model.onnx"):
            request = pb.RepositoryModelLoadRequest(model_name="tiny")
            request.parameters[name].string_param = "{}"
            code, said = status_of(lambda request=request: call("RepositoryModelLoad", request))
            assert (code, "the only parameter is 'version'" in said) == ("INVALID_ARGUMENT", True)
        gone = pb.RepositoryModelUnloadRequest(model_name="tiny")
        gone.parameters["version"].int64_param = 1
        assert status_of(lambda: call("RepositoryModelUnload", gone))[0] == "INVALID_ARGUMENT"
        assert loaded(call) == [1]


@pytest.mark.parametrize(
    ("policy", "damaged", "wanted", "failed"),
    [
        ("", (3,), [2], [3]),
        ("", (2, 3), [1], [3, 2]),
        ("latest { num_versions: 2 }", (3,), [1, 2], [3]),
        ("all { }", (1, 3), [2], [3]),
        ("specific { versions: [ 1, 3 ] }", (3,), [1], [3]),
    ],
)
def test_a_server_starts_with_the_newest_good_version_and_says_so(
    tmp_path: Path,
    policy: str,
    damaged: tuple[int, ...],
    wanted: list[int],
    failed: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    models = build(tmp_path, 1, 2, 3, policy=policy, damaged=damaged)
    build(models, 1, name="whole")
    with served(models) as (server, call):
        assert sorted(loaded(call)) == wanted
        (event,) = events(caplog, "fell back")
        assert (event["model"], event["version"], event["failed"]) == ("tiny", wanted[-1], failed)
        assert metrics(server, "robossl_model_current") == {f"tiny/{wanted[-1]}": 1.0, "whole/1": 1.0}
        assert metrics(server, "robossl_model_failed") == {f"tiny/{version}": 1.0 for version in damaged}
        assert [health(server, name) for name in ("", "tiny", "whole")] == ["SERVING"] * 3
        assert health(server, f"tiny/{wanted[-1]}") == "SERVING"
        assert {health(server, f"tiny/{version}") for version in damaged} == {"NOT_SERVING"}
        for _ in range(3):
            server.repository.look(again=False)
        assert len(events(caplog, "fell back")) == 1, "said once"
        assert len(events(caplog, "refused")) == len(damaged)


def test_a_model_without_a_good_version_is_left_out_and_that_shows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = build(tmp_path, 1, 2, damaged=(1, 2))
    build(models, 1, name="whole")
    with served(models) as (server, call):
        assert [health(server, name) for name in ("", "tiny", "tiny/2", "whole")] == [
            "SERVING",
            "NOT_SERVING",
            "NOT_SERVING",
            "SERVING",
        ]
        assert metrics(server, "robossl_model_failed") == {"tiny/1": 1.0, "tiny/2": 1.0}
        code, said = status_of(lambda: load(call))
        assert (code, said) == (
            "FAILED_PRECONDITION",
            "versions 1, 2 of tiny failed their checks and are not served; nothing of it is served. "
            "The server's log says why",
        )
        shutil.rmtree(models / "tiny")
        build(models, 3)
        server.repository.look(again=False)
        assert (health(server, "tiny"), health(server, "tiny/2")) == ("SERVING", "NOT_SERVING")
        assert metrics(server, "robossl_model_failed") == {}


def test_a_version_folder_without_its_model_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = build(tmp_path, 1)
    (models / "tiny" / "2").mkdir()
    for name in ("notes", ".hidden/3"):
        (models / "tiny" / name).mkdir(parents=True)
    with served(models) as (server, call):
        for _ in range(3):
            server.repository.look(again=True)
        (event,) = events(caplog, "ignored")
        assert (event["model"], event["version"], event["levelname"]) == ("tiny", 2, "WARNING")
        assert event["reason"] == f"{models / 'tiny' / '2'} holds no model.onnx; export it again, or remove the folder"
        code, said = status_of(lambda: load(call, 2))
        assert code == "NOT_FOUND" and said.endswith("The folder of version 2 has no model.onnx: export it again")
        assert str(tmp_path) not in said
        shutil.rmtree(models / "tiny" / "2")
        build(models, 2)
        server.repository.look(again=False)
        assert loaded(call) == [1, 2]
        shutil.rmtree(models / "tiny" / "2")
        (models / "tiny" / "2").mkdir()
        server.repository.look(again=False)
        assert len(events(caplog, "ignored")) == 2, "it was whole in between"


def test_a_scan_leaves_a_line_if_it_was_asked_for_or_changed_something(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "robossl.serving")
    models = build(tmp_path, 1)
    with served(models) as (server, _):

        def scan(*, again: bool) -> list[tuple[Any, ...]]:
            caplog.clear()
            server.repository.look(again=again)
            return [(each["loaded"], each["failed"], each["current"]) for each in events(caplog, "scanned")]

        assert scan(again=False) == []
        assert scan(again=True) == [([], [], {"tiny": 1})]
        build(models, 2)
        build(models, 3, damaged=(3,))
        assert scan(again=False) == [(["tiny/2"], ["tiny/3"], {"tiny": 2})]
        assert scan(again=False) == []
        shutil.rmtree(models / "tiny" / "2")
        assert scan(again=False) == [([], ["tiny/3"], {"tiny": 1})]


def test_a_folder_that_holds_no_models_says_which_one_to_pass(tmp_path: Path) -> None:
    build(tmp_path / "models", 1)
    (tmp_path / "file").touch()
    for folder, words in {
        "nosuch": "there is no folder .*nosuch; pass the folder of models that `robossl export --out` wrote",
        "file": "there is no folder .*file;",
        "models/tiny": f"tiny is the folder of one model; pass the folder that holds it: {tmp_path / 'models'}$",
        "models/tiny/1": f"1 is one version of a model; pass the folder of models: {tmp_path / 'models'}$",
        ".": "holds no NAME/VERSION/model.onnx",
    }.items():
        with pytest.raises(InputError, match=words):
            EncoderServer(tmp_path / folder, ServerSettings(port=0))


def test_what_is_damaged_while_it_serves_serves_on(tmp_path: Path) -> None:
    models = build(tmp_path, 1, 2)
    with served(models) as (server, call):
        (models / "tiny" / "2" / "model.onnx").write_bytes(b"")
        server.repository.look(again=True)
        said = "the files of version 2 of tiny failed their checks; the copy of version 2 that was loaded earlier"
        assert status_of(lambda: load(call))[1].startswith(said)
        assert loaded(call) == [2], "as it was loaded"


def test_a_rollback_leaves_a_line_and_moves_the_metric(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    models = build(tmp_path, 1, 2)
    caplog.set_level("INFO", "robossl.serving")
    with served(models) as (server, call):
        assert metrics(server, "robossl_model_current") == {"tiny/2": 1.0}
        shutil.rmtree(models / "tiny" / "2")
        load(call)
        (event,) = events(caplog, "rolled back")
        assert (event["version"], event["before"]) == (1, 2)
        assert metrics(server, "robossl_model_current") == {"tiny/1": 1.0}
        build(models, 3)
        server.repository.look(again=False)
        (event,) = events(caplog, "took over")
        assert (event["version"], event["before"]) == (3, 1)
        assert metrics(server, "robossl_model_current") == {"tiny/3": 1.0}


def test_health_follows_what_is_loaded(tmp_path: Path) -> None:
    models = build(tmp_path, 1)
    build(models, 1, name="other")
    names = ("", "inference.GRPCInferenceService", "tiny", "tiny/1", "other")
    with served(models) as (server, call):
        assert [health(server, name) for name in names] == ["SERVING"] * 5
        assert health(server, "nobody") == "NOT_FOUND"
        call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="tiny"))
        assert [health(server, name) for name in names] == ["SERVING"] * 2 + ["NOT_SERVING"] * 2 + ["SERVING"]
        call("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name="other"))
        assert [health(server, name) for name in names] == ["NOT_SERVING"] * 5
        assert not call("ServerReady", pb.ServerReadyRequest()).ready
        load(call)
        assert [health(server, name) for name in names] == ["SERVING"] * 4 + ["NOT_SERVING"]


def test_a_version_is_not_serving_while_it_is_loaded(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1)
    seen: list[dict[int, bool]] = []

    def note() -> None:
        seen.append({row.version: row.ready for row in repository.index()})

    repository = Repository(tmp_path, SessionSettings(), on_change=note)
    repository.load_all()
    build_tiny(tmp_path, version=2)
    repository.look(again=False)
    assert seen == [{1: False}, {1: True}, {1: True, 2: False}, {1: True, 2: True}]
    repository.close()


def test_of_two_health_updates_the_later_has_the_last_word() -> None:
    health = HealthService()

    class Changing:
        """It changes while the first update looks at it."""

        def index(self) -> list[IndexRow]:
            if later.ident is None:
                later.start()
                later.join(timeout=0.3)
                return [IndexRow("tiny", 1, ready=True, reason="")]
            return [IndexRow("tiny", 1, ready=False, reason="")]

    repository = cast(Repository, Changing())
    later = threading.Thread(target=health.update, args=(repository,))
    health.update(repository)
    later.join()
    asked = health_pb2.HealthCheckRequest(service="tiny")
    assert health.servicer.Check(asked, None).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_an_export_keeps_what_was_added_to_the_configuration(tmp_path: Path) -> None:
    card = EncoderCard.read(build(tmp_path, 1) / "tiny" / "1" / "card.json")
    config, new = tmp_path / "tiny" / "config.pbtxt", triton_config(card, max_batch=64)
    # as exports wrote it before it had a format, and with more of Triton's
    config.write_text(new.replace(" format: FORMAT_NHWC", "") + "dynamic_batching { }\n")
    set_policy(tmp_path, "latest { num_versions: 2 }")
    earlier = config.read_text()
    check_config(tmp_path, name="tiny", config=new)
    with new_version(tmp_path, name="tiny", version=2, config=new) as aside:
        (aside / "model.onnx").touch()
    assert config.read_text() == earlier
    assert {each.name for each in config.parent.iterdir()} == {"config.pbtxt", "1", "2"}
    others = (new.replace("pooled", "features"), new.replace("-1, -1, 3", "9, 9, 3"))
    for other in (triton_config(card, max_batch=32), *others):
        with pytest.raises(InputError, match="has other inputs, outputs or batch size"):
            check_config(tmp_path, name="tiny", config=other)
    config.write_text("name: {")
    with pytest.raises(InputError, match="cannot be read"):
        check_config(tmp_path, name="tiny", config=new)
