"""Unmodified tritonclient against our server, in one process with our own client."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tritonclient.grpc as triton
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from robossl_client._proto import inference_pb2
from robossl_client.client import EncoderClient
from robossl_client.shared import SharedFile
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, serving
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from robossl.encoders.inference import load_encoder


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


@pytest.fixture(scope="module")
def wanted(tiny_models: Path) -> np.ndarray:
    return load_encoder(tiny_models / "tiny")(FRAMES)["pooled"]


@pytest.fixture
def client(server: EncoderServer) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def _pixels(frames: np.ndarray = FRAMES) -> Any:
    tensor = triton.InferInput("frames", frames.shape, "UINT8")
    tensor.set_data_from_numpy(frames)
    return tensor


def test_state_and_metadata(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert not client.is_model_ready("tiny", "7")
    assert "system_shared_memory" in client.get_server_metadata().extensions
    metadata = client.get_model_metadata("tiny", as_json=True)
    assert metadata["inputs"] == [{"name": "frames", "datatype": "UINT8", "shape": ["-1", "-1", "-1", "3"]}]
    assert [each["name"] for each in metadata["outputs"]] == ["pooled", "dense"]
    config = client.get_model_config("tiny").config
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", "onnxruntime_onnx", 64)
    assert config.input[0].data_type == model_config_pb2.TYPE_UINT8
    assert config.version_policy.latest.num_versions == 1


def test_what_image_client_asks_of_a_model_is_there(client: Any) -> None:
    """Triton's `image_client` takes a model with one input of a stated format and three dims beside the batch."""
    config, metadata = client.get_model_config("tiny").config, client.get_model_metadata("tiny")
    (given,) = config.input
    assert given.format == model_config_pb2.ModelInput.FORMAT_NHWC
    assert (len(given.dims), config.max_batch_size > 0) == (3, True), "Triton refuses the format with other dims"
    assert len(metadata.inputs[0].shape) == 1 + len(given.dims)
    assert metadata.inputs[0].shape[3] == 3
    assert metadata.outputs[0].datatype == "FP32"


@pytest.mark.parametrize("num_classes", [1, 5])
def test_classes_are_refused_in_a_line(client: Any, num_classes: int) -> None:
    asked = [triton.InferRequestedOutput("dense"), triton.InferRequestedOutput("pooled", class_count=num_classes)]
    with pytest.raises(InferenceServerException, match="an encoder returns features, not classes") as caught:
        client.infer("tiny", [_pixels()], outputs=asked)
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "class_count" in str(caught.value) and "\n" not in str(caught.value)


def test_infer_and_requested_outputs(client: Any, wanted: np.ndarray) -> None:
    result = client.infer("tiny", [_pixels()], request_id="a-17", client_timeout=30)
    np.testing.assert_allclose(result.as_numpy("pooled"), wanted, atol=1e-5)
    assert result.as_numpy("dense").shape[0] == 3
    assert result.get_response().id == "a-17"
    chosen = client.infer("tiny", [_pixels()], outputs=[triton.InferRequestedOutput("pooled")])
    assert chosen.as_numpy("dense") is None


def test_images_as_bytes(client: Any, wanted: np.ndarray) -> None:
    tensor = triton.InferInput("frames", [3], "BYTES")
    tensor.set_data_from_numpy(np.array([simplejpeg.encode_jpeg(frame, quality=98) for frame in FRAMES], np.object_))
    np.testing.assert_allclose(client.infer("tiny", [tensor]).as_numpy("pooled"), wanted, atol=0.1)


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_compression(client: Any, wanted: np.ndarray, compression: str) -> None:
    result = client.infer("tiny", [_pixels()], compression_algorithm=compression)
    np.testing.assert_allclose(result.as_numpy("pooled"), wanted, atol=1e-5)


def test_what_else_it_sends_is_accepted(client: Any) -> None:
    options = {"sequence_id": 5, "sequence_start": True, "sequence_end": True, "priority": 2, "timeout": 5_000_000}
    assert client.infer("tiny", [_pixels()], **options).as_numpy("pooled") is not None
    with pytest.raises(InferenceServerException, match="could not have been ready"):
        client.infer("tiny", [_pixels()], timeout=1)


def test_errors_have_statuses(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nope' is loaded") as caught:
        client.infer("nope", [_pixels()])
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_asynchronous_calls(client: Any, wanted: np.ndarray) -> None:
    done: queue.Queue[Any] = queue.Queue()
    for row in range(3):
        client.async_infer(
            "tiny",
            [_pixels(FRAMES[row : row + 1])],
            lambda result, error: done.put((result, error)),
            request_id=str(row),
        )
    for _ in range(3):
        result, error = done.get(timeout=60)
        assert error is None
        row = int(result.get_response().id)
        np.testing.assert_allclose(result.as_numpy("pooled"), wanted[row : row + 1], atol=1e-5)


def test_a_stream_answers_all_in_order_and_tells_errors_apart(client: Any, wanted: np.ndarray) -> None:
    done: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: done.put((result, error)))
    for number in range(40):
        row = number % 3
        client.async_stream_infer("tiny", [_pixels(FRAMES[row : row + 1])], request_id=str(number))
    for number in range(40):
        result, error = done.get(timeout=60)
        assert error is None
        assert result.get_response().id == str(number)
        np.testing.assert_allclose(result.as_numpy("pooled"), wanted[number % 3 : number % 3 + 1], atol=1e-5)
    client.async_stream_infer("nope", [_pixels()])
    _, error = done.get(timeout=60)
    assert "no model 'nope'" in str(error)
    client.async_stream_infer("tiny", [_pixels()])
    assert done.get(timeout=60)[1] is None, "the stream goes on"
    client.stop_stream()


def test_system_shared_memory(client: Any, wanted: np.ndarray) -> None:
    given, taken = SharedFile(FRAMES.nbytes), SharedFile(2 * wanted.nbytes)
    given.write(FRAMES.tobytes())
    client.register_system_shared_memory("in", given.key, FRAMES.nbytes)
    client.register_system_shared_memory("out", taken.key, 2 * wanted.nbytes)
    status = client.get_system_shared_memory_status().regions
    assert {name: region.byte_size for name, region in status.items()} == {"in": 43200, "out": 2 * wanted.nbytes}
    tensor = triton.InferInput("frames", FRAMES.shape, "UINT8")
    tensor.set_shared_memory("in", FRAMES.nbytes)
    output = triton.InferRequestedOutput("pooled")
    output.set_shared_memory("out", wanted.nbytes, offset=wanted.nbytes)
    result = client.infer("tiny", [tensor], outputs=[output, triton.InferRequestedOutput("dense")])
    assert result.get_output("pooled").parameters["shared_memory_region"].string_param == "out"
    assert result.as_numpy("dense") is not None
    got = np.frombuffer(taken._map[wanted.nbytes : 2 * wanted.nbytes], np.float32).reshape(wanted.shape)
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    client.unregister_system_shared_memory("in")
    with pytest.raises(InferenceServerException, match="no shared memory region of this name"):
        client.infer("tiny", [tensor])
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions
    given.close()
    taken.close()


def test_repository_and_statistics(client: Any) -> None:
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {row["version"]: row["state"] for row in index} == {"1": "UNAVAILABLE", "2": "READY"}
    client.load_model("tiny")
    before = client.get_inference_statistics("tiny").model_stats[0]
    client.infer("tiny", [_pixels()])
    after = client.get_inference_statistics("tiny").model_stats[0]
    assert after.inference_stats.success.count == before.inference_stats.success.count + 1
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    client.unload_model("tiny")
    assert not client.is_model_ready("tiny")
    client.load_model("tiny")
    assert client.is_model_ready("tiny")
    with pytest.raises(InferenceServerException, match="the only parameter is 'version'"):
        client.load_model("tiny", config="{}")


def test_what_is_not_there_says_so(client: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.get_cuda_shared_memory_status()
    assert caught.value.status() == "StatusCode.UNIMPLEMENTED"


def test_both_clients_live_in_one_process(server: EncoderServer, client: Any) -> None:
    with EncoderClient(f"127.0.0.1:{server.port}") as ours:
        a = ours.encode(FRAMES).features["pooled"]
    np.testing.assert_array_equal(client.infer("tiny", [_pixels()]).as_numpy("pooled"), a)


def test_messages_have_the_public_field_numbers() -> None:
    def fields(message: Any) -> dict[str, tuple[int, int, bool]]:
        return {each.name: (each.number, each.type, each.is_repeated) for each in message.fields}

    public = {**service_pb2.DESCRIPTOR.message_types_by_name, **model_config_pb2.DESCRIPTOR.message_types_by_name}

    def check(ours: Any, theirs: Any) -> None:
        extra = {"properties"} if ours.name == "ModelMetadataResponse" else set()  # Triton lacks it
        mine = fields(ours)
        assert {name: mine[name] for name in mine.keys() - extra} == {
            name: number for name, number in fields(theirs).items() if name in mine
        }
        for nested in ours.nested_types:
            if nested.name != "PropertiesEntry":
                check(nested, theirs.nested_types_by_name[nested.name])

    for name, message in inference_pb2.DESCRIPTOR.message_types_by_name.items():
        check(message, public[name])


def test_the_exported_configuration_parses_as_tritons_own(tiny_models: Path) -> None:
    config = text_format.Parse((tiny_models / "tiny" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 64)
    nhwc = model_config_pb2.ModelInput.FORMAT_NHWC
    assert [(each.name, each.format, list(each.dims)) for each in config.input] == [("frames", nhwc, [-1, -1, 3])]


def test_reflection_serves_the_public_descriptors(server: EncoderServer) -> None:
    import grpc

    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        method = service.methods_by_name["ModelInfer"]
        assert method.input_type.full_name == "inference.ModelInferRequest"
        file = FileDescriptorProto()
        method.input_type.file.CopyToProto(file)
        assert "robossl" not in str(file.package)
