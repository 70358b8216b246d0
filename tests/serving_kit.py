"""Help for the tests of serving: tiny exported encoders, and real servers on free ports."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
from numpy import ndarray
from robossl_client._proto import inference_pb2 as pb
from robossl_client.wire import CALLS, path, put_values
from robossl_serving.server import EncoderServer, ServerSettings

from robossl.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.export import export
from robossl.parity import natural_frames

FRAMES = natural_frames(3, (60, 80), seed=0)


def export_tiny(out: Path, name: str, *, seed: int) -> Path:
    """Export timm's smallest ResNet at random weights as the model's next version; returns its folder."""
    torch.manual_seed(seed)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32), zero_init_last=False))
    run = out.parent / f"run{seed}"
    save_encoder(encoder, run / "encoder", extra={"method": "simsiam", "step": seed, "data": []})
    return export(run, out=out, name=name, outputs=("pooled", "dense"))


def copy_version(models: Path, out: Path, version: int, *, name: str = "tiny") -> Path:
    """One version of an exported model in a repository of its own; returns the repository."""
    shutil.copytree(models / name / str(version), out / name / str(version))
    shutil.copy(models / name / "config.pbtxt", out / name)
    return out


@contextmanager
def serving(models: Path, settings: ServerSettings | None = None) -> Iterator[EncoderServer]:
    """A server of this process on a free port."""
    server = EncoderServer(models, settings or ServerSettings(port=0))
    server.start()
    try:
        yield server
    finally:
        server.stop(grace_s=5)


class Raw:
    """The calls of the protocol with nothing in between: messages in, messages out."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __call__(self, name: str, message: Any, *, timeout: float = 10, **options: Any) -> Any:
        """One call that is no stream; `message` may be bytes."""
        call = CALLS[name]
        raw = message if isinstance(message, bytes) else message.SerializeToString()
        send = self._channel.unary_unary(path(name), None, call.decode_response)
        return send(raw, timeout=timeout, **options)

    def future(self, name: str, message: Any, *, timeout: float = 10) -> Any:
        """The same without waiting."""
        call = CALLS[name]
        return self._channel.unary_unary(path(name), call.encode_request, call.decode_response).future(
            message, timeout=timeout
        )


@contextmanager
def calling(server: EncoderServer) -> Iterator[Raw]:
    """Calls to a server."""
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Raw(channel)


def infer_request(frames: ndarray = FRAMES, *, model: str = "tiny", version: str = "", **parameters: Any) -> Any:
    """A request with raw pixels."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id="7")
    message.inputs.add(name="frames", datatype="UINT8", shape=frames.shape)
    message.raw_input_contents.append(frames.tobytes())
    put_values(message.parameters, parameters)
    return message


def output(response: Any, name: str) -> ndarray:
    """One output of a reply."""
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.name == name:
            return np.frombuffer(raw, np.float32).reshape(tuple(tensor.shape))
    raise KeyError(name)


def status_of(call: Any) -> tuple[str, str]:
    """Status and words that a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError("the call did not fail")
