"""What the server counts: failures are the encoder's alone, and queues, streams and memory are gauges."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
from prometheus_client import generate_latest
from robossl_client._proto import inference_pb2 as pb
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, Holder, calling, eventually, infer_request, serving, status_of


@pytest.fixture
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0)) as server:
        yield server


def metric(server: EncoderServer, name: str) -> float:
    text = generate_latest(server._metrics.registry).decode()
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (.*)$", text, re.MULTILINE))


def statistics(server: EncoderServer) -> Any:
    return server.repository.models()[0].statistics.to_message().inference_stats


def test_only_what_the_encoder_failed_on_counts_as_failed(server: EncoderServer) -> None:
    frame = FRAMES[:1]
    with calling(server) as call:
        with Holder(server) as holder:
            running = call.future("ModelInfer", infer_request(frame))
            assert holder.entered.wait(60)
            older = call.future("ModelInfer", infer_request(frame, robot="a"))
            holder.wait_for(1)
            newer = call.future("ModelInfer", infer_request(frame, robot="a"))
            assert status_of(older.result)[0] == "ABORTED"
            late = call.future("ModelInfer", infer_request(frame, robot="b", timeout=1))
            gone = call.future("ModelInfer", infer_request(frame))
            holder.wait_for(3)
            gone.cancel()
            holder.wait_for(2)
        assert [each.result().id for each in (running, newer)] == ["7", "7"]
        assert status_of(late.result)[0] == "DEADLINE_EXCEEDED"
        counted = statistics(server)
        assert (counted.success.count, counted.fail.count, counted.fail.ns) == (2, 0, 0)
        executor = server.repository.models()[0].executor
        run = executor._run

        def fail(*_: object) -> dict[str, np.ndarray]:
            raise RuntimeError("the device is gone")

        executor._run = fail
        assert status_of(lambda: call("ModelInfer", infer_request(frame)))[0] == "INTERNAL"
        executor._run = run
        call("ModelInfer", infer_request(frame))
    counted = statistics(server)
    assert (counted.success.count, counted.fail.count, counted.fail.ns > 0) == (3, 1, True)
    for outcome, wanted in {"served": 3, "superseded": 1, "shed": 1, "cancelled": 1, "failed": 1}.items():
        assert metric(server, rf'robossl_requests_total(?={{.*outcome="{outcome}")') == wanted


def test_the_queue_the_streams_and_the_memory_are_gauges(server: EncoderServer) -> None:
    with calling(server) as call:
        eventually(lambda: metric(server, "robossl_waiting_requests") == metric(server, "robossl_open_streams") == 0)
        with Holder(server) as holder:
            calls = [call.future("ModelInfer", infer_request(FRAMES[:1]))]
            assert holder.entered.wait(60)
            calls += [call.future("ModelInfer", infer_request(FRAMES[:1])) for _ in range(3)]
            holder.wait_for(3)
            assert metric(server, "robossl_waiting_requests") == 3
        assert all(each.result().id == "7" for each in calls)
        requests: SimpleQueue[Any] = SimpleQueue()
        replies = call.stream(iter(requests.get, None))  # open until None comes
        requests.put(infer_request())
        assert next(replies).infer_response.id == "7"
        assert metric(server, "robossl_open_streams") == 1
        requests.put(None)
        assert not list(replies)
        assert metric(server, "process_resident_memory_bytes") > 2**24
        assert metric(server, "process_open_fds") > 0


@pytest.mark.parametrize("text", ["9" * 5000, "9" * 20, "-1", "٢", "²", "1e0", "02", " 2", "2\n", "0x2", "None"])
@pytest.mark.parametrize("pinned", [False, True])
def test_a_version_that_is_no_number_is_not_loaded(server: EncoderServer, text: str, pinned: bool) -> None:
    options = {"artefact": server.repository.models()[0].artefact} if pinned else {}
    asks = {
        "ModelInfer": infer_request(version=text, **options),
        "ModelMetadata": pb.ModelMetadataRequest(name="tiny", version=text),
        "ModelConfig": pb.ModelConfigRequest(name="tiny", version=text),
        "ModelStatistics": pb.ModelStatisticsRequest(name="tiny", version=text),
    }
    with calling(server) as call:
        for name, message in asks.items():
            code, said = status_of(lambda name=name, message=message: call(name, message))
            assert code == ("FAILED_PRECONDITION" if pinned and name == "ModelInfer" else "NOT_FOUND")
            assert len(said) < 400
        assert not call("ModelReady", pb.ModelReadyRequest(name="tiny", version=text)).ready


def test_integers_of_any_size_are_no_errors_of_the_server(tiny_models: Path) -> None:
    extremes = (-(2**63), -1, 0, 2**31, 2**63 - 1)
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server, calling(server) as call:
        messages = [infer_request(**{name: value}) for name in ("age_us", "timeout", "priority") for value in extremes]
        for value in (2**64 - 1, 2**63):
            for name in ("age_us", "timeout"):
                message = infer_request()
                message.parameters[name].uint64_param = value
                messages.append(message)
        for value in extremes:
            for place in range(4):
                message = infer_request()
                message.inputs[0].shape[place] = value
                messages.append(message)
            for name in ("shared_memory_offset", "shared_memory_byte_size"):
                message = infer_request()
                del message.raw_input_contents[:]
                message.inputs[0].parameters["shared_memory_region"].string_param = "none"
                message.inputs[0].parameters[name].int64_param = value
                messages.append(message)
            message = infer_request()
            message.outputs.add(name="pooled").parameters["classification"].int64_param = value
            messages.append(message)
        region = pb.SystemSharedMemoryRegisterRequest(
            name="r", key="robossl-none", offset=2**64 - 1, byte_size=2**64 - 1
        )
        assert status_of(lambda: call("SystemSharedMemoryRegister", region))[0] == "INVALID_ARGUMENT"
        answers: set[str] = set()
        for message in messages:
            try:
                call("ModelInfer", message)
            except Exception as error:
                answers.add(error.code().name)
        assert answers <= {"INVALID_ARGUMENT", "DEADLINE_EXCEEDED"}
