"""Models to serve in benchmarks: one that costs next to nothing, one of a chosen cost, a ResNet-18, a small ViT."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import onnx
from numpy import ndarray
from onnx import helper, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from robossl_client.card import EncoderCard, InputContract, TensorSpec

from robossl.encoders.onnx_session import DIGEST_KEY, file_sha256, open_session
from robossl.exporting.triton_layout import triton_config

SIDE = 224  # pixels: 150 KB a frame
DIM = 512  # floats of a reply


def null_model(out: Path) -> Path:
    """Write a mean over every sixteenth pixel and a projection, so that the transport dominates; return its folder."""
    rng = np.random.default_rng(0)
    weights = {
        "starts": np.array([0, 0]),
        "ends": np.array([2**31, 2**31]),
        "axes": np.array([1, 2]),
        "steps": np.array([16, 16]),
        "projection": rng.standard_normal((3, DIM), dtype=np.float32),
    }
    nodes = [
        make_node("Slice", ["frames", "starts", "ends", "axes", "steps"], ["some"]),
        make_node("Cast", ["some"], ["floats"], to=onnx.TensorProto.FLOAT),
        make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        make_node("MatMul", ["means", "projection"], ["pooled"]),
    ]
    return _write(out, "null", nodes, weights)


def convolutions(out: Path, name: str, *, layers: int) -> Path:
    """Write convolutions of 48 channels on a quarter of the resolution; return their folder."""
    rng = np.random.default_rng(0)
    nodes = [
        make_node("Cast", ["frames"], ["floats"], to=onnx.TensorProto.FLOAT),
        make_node("Transpose", ["floats"], ["pixels"], perm=[0, 3, 1, 2]),
        make_node("Conv", ["pixels", "stem"], ["r0"], strides=[4, 4]),
    ]
    weights = {
        "stem": 0.002 * rng.standard_normal((48, 3, 4, 4), dtype=np.float32),
        "projection": rng.standard_normal((48, DIM), dtype=np.float32),
        "axes": np.array([2, 3]),
    }
    for number in range(layers):
        weights[f"w{number}"] = 0.068 * rng.standard_normal((48, 48, 3, 3), dtype=np.float32)
        nodes.append(make_node("Conv", [f"r{number}", f"w{number}"], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(make_node("Relu", [f"c{number}"], [f"r{number + 1}"]))
    nodes.append(make_node("ReduceMean", [f"r{layers}", "axes"], ["means"], keepdims=0))
    nodes.append(make_node("MatMul", ["means", "projection"], ["pooled"]))
    return _write(out, name, nodes, weights)


def model_of_cost(out: Path, seconds: float) -> Path:
    """Write convolutions that take about `seconds` on one thread of this machine; return their folder."""
    few, many = 4, 12
    few_s, many_s = (
        run_seconds(convolutions(out / ".calibration", f"layers{layers}", layers=layers)) for layers in (few, many)
    )
    layers = few + round((seconds - few_s) * (many - few) / max(many_s - few_s, 1e-6))
    return convolutions(out, "convolutions", layers=max(1, layers))


def resnet18(out: Path) -> Path:
    """Export a ResNet-18 with random weights; return its folder."""
    import torch

    from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
    from robossl.exporting.export import export

    torch.manual_seed(0)
    # The exporter removes branches whose weights are all zero.
    encoder = build_encoder(EncoderConfig("resnet18", input_hw=(SIDE, SIDE), zero_init_last=False))
    save_encoder(encoder, out / ".run" / "encoder", extra={"method": "none", "step": 0, "data": []})
    return export(out / ".run", out=out, name="resnet18", outputs=("pooled",))


def small_vit(out: Path) -> Path:
    """Export a ViT of four blocks for frames of 96x96; return its folder."""
    import torch

    from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
    from robossl.exporting.export import export

    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("test_vit4", input_hw=(96, 96)))
    save_encoder(encoder, out.parent / ".vit" / "encoder", extra={"method": "none", "step": 0, "data": []})
    return export(out.parent / ".vit", out=out, name="vit", outputs=("pooled",))


def run_seconds(folder: Path, *, num_runs: int = 30) -> float:
    """Return the median run of one frame in this process, on one thread."""
    session = open_session(folder / "model.onnx", threads=1)
    frame = some_frame()
    seconds = []
    for _ in range(num_runs):
        began = time.perf_counter()
        session.run(None, {"frames": frame})
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def some_frame() -> ndarray:
    """Return one frame of noise, (1, 224, 224, 3)."""
    return np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE, 3), np.uint8)


def _write(out: Path, name: str, nodes: list[onnx.NodeProto], weights: dict[str, ndarray]) -> Path:
    folder = out / name / "1"
    folder.mkdir(parents=True)
    graph = make_graph(
        nodes,
        name,
        [make_tensor_value_info("frames", onnx.TensorProto.UINT8, ["batch", "height", "width", 3])],
        [make_tensor_value_info("pooled", onnx.TensorProto.FLOAT, ["batch", DIM])],
        [numpy_helper.from_array(values, key) for key, values in weights.items()],
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=10)
    digest = hashlib.sha256(graph.SerializeToString()).hexdigest()
    helper.set_model_props(model, {DIGEST_KEY: digest})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    frames = TensorSpec("uint8", ("batch", "height", "width", 3))
    card = EncoderCard(
        name=name,
        version=1,
        digest=digest,
        backbone=name,
        input=InputContract(frames, (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, fixed_hw=None),
        outputs={"pooled": TensorSpec("float32", ("batch", DIM))},
        created_by="a benchmark",
        model_sha256=file_sha256(folder / "model.onnx"),
    )
    card.write(folder / "card.json")
    (folder.parent / "config.pbtxt").write_text(triton_config(card, max_batch=64))
    return folder
