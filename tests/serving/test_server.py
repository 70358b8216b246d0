"""The server over real ports: the protocol's calls, what is refused and in which words."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import simplejpeg
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from PIL import Image
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard
from robossl_client.client import EncoderClient
from robossl_client.wire import path
from robossl_serving.infer import Inference
from robossl_serving.limits import Limits
from robossl_serving.server import EncoderServer
from serving_kit import FRAMES, Raw, calling, infer_request, output, serving, status_of

from robossl.data.store import Store
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.inference import load_encoder
from robossl.exporting.export import export


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models) as server:
        yield server


@pytest.fixture
def call(server: EncoderServer) -> Iterator[Raw]:
    with calling(server) as call:
        yield call


def test_a_reply_is_what_onnxruntime_gives_and_says_by_whom(call: Raw, tiny_models: Path) -> None:
    encode = load_encoder(tiny_models / "tiny")
    response = call("ModelInfer", infer_request())
    for name, wanted in encode(FRAMES).items():
        np.testing.assert_allclose(output(response, name), wanted, atol=1e-5)
    assert (response.model_name, response.model_version, response.id) == ("tiny", "2", "7")
    said = response.parameters
    assert said["digest"].string_param == encode.card.digest
    assert said["artefact"].string_param == encode.card.model_sha256
    times = [said[f"{stage}_us"].int64_param for stage in ("decode", "queue", "infer")]
    assert all(times) and sum(times) <= said["server_us"].int64_param


def test_torch_and_the_served_export_agree_on_real_frames(clip_store: Store, tmp_path: Path) -> None:
    torch.manual_seed(1)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64), zero_init_last=False))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={"method": "simsiam", "step": 1, "data": []})
    export(tmp_path / "run", out=tmp_path / "models", name="real")
    frames = np.stack([each.permute(1, 2, 0).numpy() for each in clip_store.decode(np.arange(4))])
    wanted = load_encoder(tmp_path / "run")(frames)
    with serving(tmp_path / "models") as real, EncoderClient(f"127.0.0.1:{real.port}") as client:
        got = client(frames)
        assert client.card.parity is not None
        for name, agreement in client.card.parity.outputs.items():
            assert np.abs(got[name] - wanted[name]).max() < 10 * max(agreement.max_abs_difference, 1e-6)


def test_outputs_are_chosen(call: Raw) -> None:
    message = infer_request()
    message.outputs.add(name="dense")
    assert [tensor.name for tensor in call("ModelInfer", message).outputs] == ["dense"]
    message.outputs.add(name="cls")
    assert status_of(lambda: call("ModelInfer", message)) == (
        "INVALID_ARGUMENT",
        "ask for outputs among pooled, dense, each at most once",
    )


def test_typed_contents_are_taken_too(call: Raw) -> None:
    wanted = output(call("ModelInfer", infer_request()), "pooled")
    message = infer_request()
    del message.raw_input_contents[:]
    message.inputs[0].contents.uint_contents.extend(FRAMES.ravel().tolist())
    np.testing.assert_array_equal(output(call("ModelInfer", message), "pooled"), wanted)
    message.inputs[0].contents.uint_contents[5] = 256
    assert status_of(lambda: call("ModelInfer", message)) == ("INVALID_ARGUMENT", "UINT8 values are at most 255")


def _images(*images: bytes, typed: bool = False) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name="tiny")
    tensor = message.inputs.add(name="frames", datatype="BYTES", shape=[len(images)])
    if typed:
        tensor.contents.bytes_contents.extend(images)
    else:
        message.raw_input_contents.append(b"".join(len(each).to_bytes(4, "little") + each for each in images))
    return message


def _png(frame: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", **options)
    return file.getvalue()


@pytest.mark.parametrize("typed", [False, True])
def test_png_is_exact_and_jpeg_is_its_decoders_pixels(call: Raw, typed: bool) -> None:
    wanted = output(call("ModelInfer", infer_request()), "pooled")
    png = call("ModelInfer", _images(*map(_png, FRAMES), typed=typed))
    np.testing.assert_array_equal(output(png, "pooled"), wanted)
    jpegs = [simplejpeg.encode_jpeg(frame, quality=95) for frame in FRAMES]
    decoded = np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in jpegs])
    jpeg = call("ModelInfer", _images(*jpegs, typed=typed))
    np.testing.assert_array_equal(output(jpeg, "pooled"), output(call("ModelInfer", infer_request(decoded)), "pooled"))


JPEG = simplejpeg.encode_jpeg(FRAMES[0])
SIZE_AT = JPEG.index(b"\xff\xc0") + 5  # of the frame header: height, width
HUGE_JPEG = JPEG[:SIZE_AT] + (30_000).to_bytes(2, "big") * 2 + JPEG[SIZE_AT + 4 :]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ((HUGE_JPEG,), "larger than 67108864 bytes"),
        ((_png(FRAMES[0])[:16] + b"\x00\x00\x75\x30" * 2 + _png(FRAMES[0])[24:],), "larger than 67108864 bytes"),
        ((JPEG[: len(JPEG) // 2],), "an image is damaged"),
        ((_png(FRAMES[0])[:200],), "an image is damaged"),
        ((b"GIF89a",), "neither a JPEG nor a PNG"),
        ((b"",), "neither a JPEG nor a PNG"),
        ((_png(FRAMES[0]), _png(FRAMES[0][:20])), "of one size"),
        ((_png(np.zeros((4, 4), np.uint16)),), "more than 8 bits"),
        ((JPEG,) * 65, "1 to 64 frames"),
    ],
    ids=["huge-jpeg", "huge-png", "half-jpeg", "half-png", "gif", "empty", "sizes", "16-bit", "many"],
)
def test_images_that_cannot_be_used_are_refused(call: Raw, images: tuple[bytes, ...], words: str) -> None:
    code, said = status_of(lambda: call("ModelInfer", _images(*images)))
    assert code == "INVALID_ARGUMENT"
    assert words in said


def _change(**fields: object) -> pb.ModelInferRequest:
    message = infer_request()
    tensor = message.inputs[0]
    for name, value in fields.items():
        if name == "shape":
            tensor.shape[:] = value
        elif name == "raw":
            message.raw_input_contents[:] = value
        elif name == "extra":
            message.inputs.add(name="more")
        elif name == "both":
            tensor.contents.uint_contents.append(1)
        else:
            setattr(tensor, name, value)
    return message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "pixels"}, "one input, 'frames'"),
        ({"extra": 1}, "one input, 'frames'"),
        ({"datatype": "FP32"}, "UINT8 pixels or BYTES"),
        ({"datatype": "BYTES"}, "shape (batch,)"),
        ({"shape": [3, 60, 80]}, "(batch, height, width, 3)"),
        ({"shape": [3, 60, 80, 4]}, "(batch, height, width, 3)"),
        ({"shape": [-3, 60, -80, 3]}, "(batch, height, width, 3)"),
        ({"shape": [0, 60, 80, 3]}, "(batch, height, width, 3)"),
        ({"shape": [2**62, 2**62, 2, 3]}, "(batch, height, width, 3)"),
        ({"shape": [2, 2**30, 2**30, 3]}, "larger than 67108864 bytes"),
        ({"shape": [65, 8, 8, 3]}, "1 to 64 frames"),
        ({"shape": [3, 60, 81, 3]}, "the shape says 43740 bytes, 43200 were sent"),
        ({"raw": [b"", b""]}, "one entry for each input"),
        ({"raw": []}, "exactly one of"),
        ({"both": 1}, "exactly one of"),
    ],
)
def test_frames_that_are_not_what_the_card_says_are_refused(call: Raw, change: dict[str, object], words: str) -> None:
    code, said = status_of(lambda: call("ModelInfer", _change(**change)))
    assert code == "INVALID_ARGUMENT"
    assert words in said


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"robot": 3}, "'robot' must be a string"),
        ({"robot": ""}, "'robot' is empty"),
        ({"robot": "x" * 129}, "at most 128 characters"),
        ({"age_us": "old"}, "'age_us' must be an integer"),
        ({"age_us": True}, "'age_us' must be an integer"),
        ({"age_us": -1}, "must not be negative"),
        ({"age_us": 600_000_001}, "over 600 s"),
        ({"age_us": 2**63 - 1, "robot": "arm"}, "over 600 s"),
        ({f"p{i}": i for i in range(65)}, "at most 64 parameters"),
    ],
)
def test_parameters_are_checked(call: Raw, parameters: dict[str, object], words: str) -> None:
    code, said = status_of(lambda: call("ModelInfer", infer_request(**parameters)))
    assert code == "INVALID_ARGUMENT"
    assert words in said


def test_what_is_no_message_is_refused_as_such(call: Raw) -> None:
    for name in ("ModelInfer", "ModelMetadata"):
        code, said = status_of(lambda name=name: call(name, b"\xff\xff\xff"))
        assert (code, said) == ("INVALID_ARGUMENT", f"the message is not a {name}Request")


def test_names_that_are_not_there(call: Raw) -> None:
    assert status_of(lambda: call("ModelInfer", infer_request(model="big"))) == (
        "NOT_FOUND",
        "no model 'big' is loaded; loaded are tiny",
    )
    code, said = status_of(lambda: call("ModelInfer", infer_request(version="9")))
    assert (code, said) == ("NOT_FOUND", "version '9' of tiny is not loaded; loaded are 2")


def test_the_server_describes_itself_and_its_model(call: Raw, tiny_models: Path) -> None:
    assert call("ServerLive", pb.ServerLiveRequest()).live
    assert call("ServerReady", pb.ServerReadyRequest()).ready
    assert call("ModelReady", pb.ModelReadyRequest(name="tiny")).ready
    assert not call("ModelReady", pb.ModelReadyRequest(name="tiny", version="1")).ready
    assert call("ServerMetadata", pb.ServerMetadataRequest()).name == "robossl"
    metadata = call("ModelMetadata", pb.ModelMetadataRequest(name="tiny"))
    assert (metadata.name, metadata.versions, metadata.platform) == ("tiny", ["2"], "onnxruntime_onnx")
    card = EncoderCard.from_json(metadata.properties["card"])
    assert card == EncoderCard.read(tiny_models / "tiny" / "2" / "card.json")
    assert [tuple(each.shape) for each in metadata.inputs] == [(-1, -1, -1, 3)]
    assert [each.datatype for each in metadata.outputs] == ["FP32", "FP32"]
    config = call("ModelConfig", pb.ModelConfigRequest(name="tiny")).config
    assert (config.max_batch_size, list(config.input[0].dims)) == (64, [-1, -1, 3])
    index = call("RepositoryIndex", pb.RepositoryIndexRequest())
    assert [(row.version, row.state) for row in index.models] == [("1", "UNAVAILABLE"), ("2", "READY")]


def test_a_call_whose_time_is_up_is_not_given_more(server: EncoderServer) -> None:
    inference = Inference(server.repository, Limits(), None)

    def allowed_s(left_s: float | None, **parameters: object) -> float:
        message = infer_request(robot="arm", **parameters)
        asked = inference.prepare(message, left_s=left_s, peer="ipv4:127.0.0.1:1", on_done=lambda: None).request
        return asked.deadline_s - asked.arrived_s

    for left_s, timeout_us, wanted_s in ((0.0, 0, 0.0), (0.0, 5000, 0.0), (None, 0, 1.0), (0.5, 5000, 0.005)):
        assert allowed_s(left_s, timeout=timeout_us) == pytest.approx(wanted_s, abs=1e-6)


def test_statistics_count_frames_and_runs(call: Raw) -> None:
    def ask() -> pb.ModelStatistics:
        (statistics,) = call("ModelStatistics", pb.ModelStatisticsRequest(name="tiny")).model_stats
        return statistics

    before = ask()
    call("ModelInfer", infer_request())
    after = ask()
    assert after.inference_count - before.inference_count == 3
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.execution_count > before.execution_count


def test_health_and_unknown_calls(server: EncoderServer, call: Raw) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
        unknown = channel.unary_unary(path("CudaSharedMemoryStatus"))
        assert status_of(lambda: unknown(b"", timeout=5))[0] == "UNIMPLEMENTED"


def test_the_server_process_imports_no_torch(tiny_models: Path) -> None:
    program = """
import sys
from pathlib import Path
from robossl_serving.command import serve
from robossl_serving.server import EncoderServer, ServerSettings
server = EncoderServer(Path(sys.argv[1]), ServerSettings(port=0))
server.start()
server.stop()
print(sorted({"torch", "onnx", "timm", "scipy", "robossl_envs"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program, str(tiny_models)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
