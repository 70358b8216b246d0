"""Helpers of the serving tests: tiny exported encoders, and real servers on free ports."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
from numpy import ndarray
from onnx import helper, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard, InputContract, TensorSpec
from robossl_client.wire import CALLS, path, put_values
from robossl_serving.server import EncoderServer, ServerSettings

from robossl.encoders.onnx_session import DIGEST_KEY, file_sha256
from robossl.exporting.parity import natural_frames
from robossl.exporting.triton_layout import triton_config

FRAMES = natural_frames(3, (60, 80), seed=0)


def build_tiny(
    out: Path,
    *,
    version: int,
    name: str = "tiny",
    layers: int = 1,
    every: int = 1,
    broken: str = "",
    fixed_hw: tuple[int, int] | None = None,
) -> Path:
    """Write an encoder of a few convolutions with weights drawn from its version; return its folder.

    Args:
        out: The repository.
        version: Version number and seed of the weights.
        name: Name of the model.
        layers: Number of layers with 48 channels at full size; more are slower.
        every: Stride of the rows and columns in use; with 16 large frames cost little.
        broken: "nan" or "constant" features, or a graph that onnxruntime cannot open ("unknown") or run ("unrunnable").
        fixed_hw: The only frame size that its card allows.
    """
    folder = out / name / str(version)
    folder.mkdir(parents=True)
    digest = hashlib.sha256(f"{name} {version} {broken}".encode()).hexdigest()
    (folder / "model.onnx").write_bytes(_graph(version, layers, every, broken, digest))
    frames = TensorSpec("uint8", ("batch", "height", "width", 3))
    card = EncoderCard(
        name=name,
        version=version,
        digest=digest,
        backbone="tiny",
        input=InputContract(frames, (32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), fixed_hw=fixed_hw),
        outputs={"pooled": TensorSpec("float32", ("batch", 48)), "dense": TensorSpec("float32", ("batch", 48, 1, 1))},
        created_by="the tests",
        model_sha256=file_sha256(folder / "model.onnx"),
    )
    card.write(folder / "card.json")
    (folder.parent / "config.pbtxt").write_text(triton_config(card, max_batch=64))
    return folder


def _graph(seed: int, layers: int, every: int, broken: str, digest: str) -> bytes:
    rng = np.random.default_rng(seed)
    nodes, weights, last = [], [], "pixels"
    for number in range(layers):
        shape = (48, 3 if number == 0 else 48, 3, 3)
        values = (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        if broken == "constant":
            values *= 0
        weights.append(numpy_helper.from_array(values / (50 if number == 0 else 1), f"w{number}"))
        nodes.append(make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(make_node("Relu", [f"c{number}"], [f"r{number}"]))
        last = f"r{number}"
    if broken == "nan":
        weights.append(numpy_helper.from_array(np.full((), np.nan, np.float32), "nan"))
        nodes.append(make_node("Mul", [last, "nan"], ["n"]))
        last = "n"
    if broken == "unknown":  # it has no such kernel
        nodes += [make_node("Cast", [last], ["i"], to=onnx.TensorProto.INT16), make_node("Relu", ["i"], ["j"])]
        nodes.append(make_node("Cast", ["j"], ["k"], to=onnx.TensorProto.FLOAT))
        last = "k"
    if broken == "unrunnable":
        weights.append(numpy_helper.from_array(np.array([7, 48, 3, 3]), "sizes"))
        nodes.append(make_node("Reshape", [last, "sizes"], ["l"]))
        last = "l"
    inputs = [make_tensor_value_info("frames", onnx.TensorProto.UINT8, ["batch", "height", "width", 3])]
    outputs = [
        make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["batch", 48]),
        make_tensor_value_info("dense", onnx.TensorProto.FLOAT, ["batch", 48, 1, 1]),
    ]
    slices = {"starts": [0, 0], "ends": [2**31, 2**31], "axes": [1, 2], "steps": [every, every]}
    weights += [numpy_helper.from_array(np.array(values), key) for key, values in slices.items()]
    nodes = [
        make_node("Slice", ["frames", *slices], ["some"]),
        make_node("Cast", ["some"], ["floats"], to=onnx.TensorProto.FLOAT),
        make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
        *nodes,
        make_node("GlobalAveragePool", [last], ["dense"]),
        make_node("Flatten", ["dense"], ["pooled"]),
    ]
    graph = make_graph(nodes, "tiny", inputs, outputs, weights)
    model = make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {DIGEST_KEY: digest})
    raw: bytes = model.SerializeToString()
    return raw


def copy_version(models: Path, out: Path, version: int, *, name: str = "tiny") -> Path:
    """Copy one version of an exported model to another repository; return the repository."""
    shutil.copytree(models / name / str(version), out / name / str(version))
    shutil.copy(models / name / "config.pbtxt", out / name)
    return out


@contextmanager
def serving(models: Path, settings: ServerSettings | None = None) -> Iterator[EncoderServer]:
    """Run a server in this process on a free port."""
    server = EncoderServer(models, settings or ServerSettings(port=0))
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_s=5)


class Raw:
    """The calls of the protocol as plain messages."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __call__(self, name: str, message: Any, *, timeout: float = 10, **options: Any) -> Any:
        """Make a unary call; `message` may be bytes."""
        call = CALLS[name]
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        send = self._channel.unary_unary(path(name), None, call.decode_response)
        return send(raw, timeout=timeout, **options)

    def future(self, name: str, message: Any, *, timeout: float = 10) -> Any:
        """Start a unary call and return its future."""
        call = CALLS[name]
        return self._channel.unary_unary(path(name), call.encode_request, call.decode_response).future(
            message, timeout=timeout
        )

    def stream(self, requests: Iterator[Any], **options: Any) -> Any:
        """Open a stream; return its replies."""
        call = CALLS["ModelStreamInfer"]
        open_stream = self._channel.stream_stream(path("ModelStreamInfer"), call.encode_request, call.decode_response)
        return open_stream(requests, **{"timeout": 60} | options)


@contextmanager
def calling(server: EncoderServer, *, host: str = "127.0.0.1") -> Iterator[Raw]:
    """Open a channel to a server."""
    with grpc.insecure_channel(f"{host}:{server.port}") as channel:
        yield Raw(channel)


def own_address() -> str:
    """Return an address of this machine that is not loopback; skip the test if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def eventually(check: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """Wait until `check` is true; fail if it is not in time."""
    until_s = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until_s, f"not within {within_s:g} s"
        time.sleep(0.005)


def freeze(process: subprocess.Popen[str]) -> None:
    """Stop a process by SIGSTOP and wait until all its threads stand still."""
    process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{process.pid}/task")
    eventually(lambda: all(_state(thread) == "T" for thread in threads.iterdir()))


def _state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]


class Holder:
    """Keeps an encoder busy until `let_go` is set, so that other requests wait."""

    def __init__(self, server: EncoderServer) -> None:
        (model,) = server.repository.models()
        self.executor = model.executor
        self._run = self.executor._run
        self.let_go = threading.Event()
        self.entered = threading.Event()

    def __enter__(self) -> Holder:
        def run(*args: object) -> object:
            self.entered.set()
            self.let_go.wait(60)
            return self._run(*args)

        self.executor._run = run
        return self

    def wait_for(self, waiting: int) -> None:
        eventually(lambda: len(self.executor) == waiting)

    def __exit__(self, *_: object) -> None:
        self.let_go.set()
        self.executor._run = self._run


def infer_request(frames: ndarray = FRAMES, *, model: str = "tiny", version: str = "", **parameters: Any) -> Any:
    """Build a request with raw pixels."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id="7")
    message.inputs.add(name="frames", datatype="UINT8", shape=frames.shape)
    message.raw_input_contents.append(frames.tobytes())
    put_values(message.parameters, parameters)
    return message


def output(response: Any, name: str) -> ndarray:
    """Return one output of a reply."""
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.name == name:
            return np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
    raise KeyError(name)


def status_of(call: Any) -> tuple[str, str]:
    """Return the status and message of a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("the call did not fail")


@contextmanager
def server_process(models: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start `robossl serve` as a process, wait until it is ready, and yield it and its port.

    The process is killed after five minutes, so that a test that reads its output always ends.
    """
    command = [sys.executable, "-m", "robossl", "serve", str(models), "--threads", "1"]
    process = subprocess.Popen(
        [*command, *(("--port", "0") if "--port" not in options else ()), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    watchdog = threading.Timer(300, process.kill)
    watchdog.start()
    try:
        port = next(
            (int(found[1]) for line in process.stdout if (found := re.search(r"serving on .*:(\d+) ", line))), 0
        )
        assert port, process.stderr.read()
        yield process, port
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
