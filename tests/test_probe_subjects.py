"""Whatever a person owns, opened for probing: real files, a real server, real stops."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from robossl_serving.server import ServerSettings
from safetensors.torch import save_file
from serving_kit import build_tiny, serving

from robossl.encode import load_encode
from robossl.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.errors import InputError, ResourceError
from robossl.parity import natural_frames
from robossl.probes.features import CHUNK, ViewFile, features
from robossl.probes.result import Subject
from robossl.probes.subjects import Described, open_subject, pixels_reference, random_reference
from robossl.probes.subjects.probed import Probed
from robossl.probes.subjects.served import open_served

FRAMES = natural_frames(5, (40, 56), seed=3)
TINY_TIMM = "test_resnet"
PLAIN = Described(range="0-1")


def write_onnx(
    path: Path,
    *,
    shape: tuple[int | str, ...] = ("batch", 3, 24, 32),
    dtype: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("map",),
    weight: float = 1.0,
) -> str:
    """A model whose map is its input with the colours weighted 1, 2, 3, and whose vector is its mean."""
    last = shape[-1] == 3
    weights = np.array([1, 2, 3], np.float32).reshape((1, 1, 1, 3) if last else (1, 3, 1, 1)) * weight
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "w"], ["map"]),
        helper.make_node("ReduceMean", ["map", "axes"], ["vector"], keepdims=0),
    ]
    axes = np.array([1, 2] if last else [2, 3], np.int64)
    values = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(axes, "axes")]
    known: dict[str, list[Any]] = {"map": [None] * 4, "vector": [None, 3]}
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, known[name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", dtype, shape)], made, values)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return str(path)


def write_views(folder: Path, *, num_views: int = 2, num_frames: int = 150) -> list[ViewFile]:
    rng = np.random.default_rng(0)
    views = []
    for i in range(num_views):
        np.save(folder / f"view{i}.npy", rng.integers(0, 255, (num_frames, 16, 20, 3), dtype=np.uint8))
        views.append(ViewFile(folder / f"view{i}.npy", f"{i}" * 64))
    return views


# Encoders of ours, in torch, exported, served


def test_a_run_folder_is_opened_with_both_its_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone=TINY_TIMM, input_hw=(32, 32), zero_init_last=False))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={})
    probed = open_subject(str(tmp_path / "run"))
    found = probed(FRAMES)
    assert (probed.about.name, probed.about.kind, probed.outputs) == ("run", "run", ("pooled", "dense"))
    assert found["pooled"].shape == (5, probed.about.dim)
    np.testing.assert_array_equal(found["pooled"], load_encode(tmp_path / "run")(FRAMES)["pooled"])
    assert found["dense"].shape[:2] == (5, probed.about.dim)
    assert "to 32x32" in probed.about.preprocessing


def test_a_served_encoder_is_the_exported_one_and_is_cached_apart(tmp_path: Path) -> None:
    local = open_subject(str(build_tiny(tmp_path, version=1)))
    with serving(tmp_path, ServerSettings(port=0)) as server:
        served = open_subject(f"grpc://127.0.0.1:{server.port}/tiny")
        only = open_subject(f"grpc://127.0.0.1:{server.port}", outputs=("pooled",))
        np.testing.assert_allclose(served(FRAMES)["pooled"], local(FRAMES)["pooled"], rtol=1e-5)
        assert (local.about.kind, served.about.kind) == ("onnx", "grpc")
        assert local.about.sha256 == served.about.sha256
        assert local.digest != served.digest
        assert only.outputs == ("pooled",)
        with pytest.raises(InputError, match="nothing_here"):
            open_subject(f"grpc://127.0.0.1:{server.port}/nothing_here")


def test_a_server_that_stops_midway_loses_nothing(tmp_path: Path) -> None:
    build_tiny(tmp_path / "models", version=1)
    views, cache = write_views(tmp_path), tmp_path / "cache"
    with serving(tmp_path / "models", ServerSettings(port=0)) as server:
        source = f"grpc://127.0.0.1:{server.port}/tiny"
        probed = open_served(source, outputs=("pooled",), deadline_ms=1500)
        going = features(probed, views, cache)
        first = np.array(next(going)["pooled"])
        port = server.port
    with pytest.raises(ResourceError, match=r"does not answer .* run the same command again"):
        next(going)
    with pytest.raises(ResourceError, match="does not answer"):
        open_served(source, outputs=("pooled",), deadline_ms=300)
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    with serving(tmp_path / "models", ServerSettings(port=port)):
        again = [each["pooled"] for each in features(open_served(source, outputs=("pooled",)), views, cache)]
    assert len(kept) == 1
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    np.testing.assert_array_equal(again[0], first)
    whole = open_subject(str(tmp_path / "models" / "tiny" / "1"))(np.load(views[1].path))["pooled"]
    np.testing.assert_allclose(again[1], whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("source", ["grpc:///tiny", "grpc://host:1/a/b"])
def test_an_address_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(InputError, match="is not grpc://host:port/model"):
        open_subject(source)


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no encoder"):
        open_subject(str(tmp_path))
    with pytest.raises(InputError, match="no ONNX model at"):
        open_subject(str(tmp_path / "none.onnx"))
    build_tiny(tmp_path, version=1)
    with pytest.raises(InputError, match="says itself how it takes frames"):
        open_subject(str(tmp_path / "tiny"), described=PLAIN)


# ONNX models of others


def resized_by_torch(frames: ndarray, hw: tuple[int, int]) -> ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return torch.nn.functional.interpolate(pixels, hw, mode="bilinear", antialias=True).numpy()


@pytest.mark.parametrize(
    ("shape", "said", "expected"),
    [
        (("b", 3, 24, 32), PLAIN, lambda x: x / 255),
        ((2, 3, 24, 32), Described(range="0-255"), lambda x: x),  # batches of 2, the last one filled up
        (("b", 24, 32, 3), PLAIN, lambda x: x / 255),
        (("b", 3, "h", "w"), Described(range="0-1", size=(24, 32)), lambda x: x / 255),
        (("b", "c", 24, 32), Described(range="0-1", layout="nchw"), lambda x: x / 255),
        (("b", 3, 24, 32), Described(range="0-1", order="bgr"), lambda x: x[:, ::-1] / 255),
        (
            ("b", 3, 24, 32),
            Described(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
            lambda x: (
                (x / 255 - np.array([0.5, 0.4, 0.3]).reshape(3, 1, 1)) / np.array([0.2, 0.2, 0.1]).reshape(3, 1, 1)
            ),
        ),
    ],
)
def test_frames_reach_a_model_as_described(
    tmp_path: Path, shape: tuple[int | str, ...], said: Described, expected: Callable[[ndarray], ndarray]
) -> None:
    probed = open_subject(write_onnx(tmp_path / "net.onnx", shape=shape), described=said)
    wanted = expected(resized_by_torch(FRAMES, (24, 32))) * np.array([1, 2, 3]).reshape(3, 1, 1)
    found = probed(FRAMES)
    np.testing.assert_allclose(found["dense"], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["pooled"], wanted.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert (probed.about.name, probed.about.dim, probed.about.kind) == ("net", 3, "onnx")


def test_a_graph_that_takes_bytes_of_any_size_needs_no_words(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", shape=("b", "h", "w", 3), dtype=TensorProto.UINT8)
    probed = open_subject(source)
    np.testing.assert_allclose(probed(FRAMES)["pooled"], FRAMES.mean((1, 2)) * [1, 2, 3], rtol=1e-5)
    assert probed.about.preprocessing == "frames as they are; rgb nhwc uint8 in 0-255"


def test_a_vector_and_a_map_may_be_two_outputs(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", outputs=("map", "vector"))
    alone = open_subject(source, described=Described(range="0-1", output="vector"))
    both = open_subject(source, described=Described(range="0-1", output="vector", dense="map"))
    assert (alone.outputs, both.outputs) == (("pooled",), ("pooled", "dense"))
    assert alone.digest != both.digest
    np.testing.assert_allclose(both(FRAMES)["pooled"], both(FRAMES)["dense"].mean((2, 3)), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said", "message"),
    [
        ({"shape": ("b", "c", "h", "w")}, PLAIN, "is an ONNX model with unknown layout"),
        ({"shape": ("b", 3, 24, 3)}, PLAIN, "is an ONNX model with unknown layout"),
        ({"shape": ("b", 3, 24, 32)}, Described(layout="nhwc"), "is not nhwc of 3 colours"),
        ({"shape": ("b", 3, "h", "w")}, PLAIN, "pass the size it was trained at"),
        ({"shape": ("b", 3, 24, 32)}, Described(range="0-1", size=(9, 9)), "takes frames of 24x32 only"),
        ({}, Described(), "its graph does not say of which scale"),
        ({}, Described(mean=(0.0, 0.0, 0.0)), "mean and std belong together"),
        ({}, Described(mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 57.0)), "pass range 0-255"),
        ({}, Described(mean=(0.5, 0.5, 0.5), std=(0.0, 1.0, 1.0)), "do not fit pixels in 0-1"),
        ({"dtype": TensorProto.UINT8}, PLAIN, "takes bytes and scales them itself"),
        ({"dtype": TensorProto.INT64}, PLAIN, "takes tensor(int64), not pixels"),
        ({"outputs": ("map", "vector")}, PLAIN, "has 2 outputs; say which is probed"),
        ({"outputs": ("map", "vector")}, Described(range="0-1", output="vektor"), "did you mean 'vector'"),
    ],
)
def test_what_cannot_be_known_is_refused_in_one_line(
    tmp_path: Path, options: dict[str, Any], said: Described, message: str
) -> None:
    source = write_onnx(tmp_path / "net.onnx", **options)
    with pytest.raises(InputError) as caught:
        open_subject(source, described=said)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_beside_the_model_belong_to_its_digest(tmp_path: Path) -> None:
    digests = []
    for weight in (1.0, 2.0):
        model = onnx.load(write_onnx(tmp_path / "whole.onnx", weight=weight))
        (tmp_path / "weights").unlink(missing_ok=True)
        set_external_data(next(each for each in model.graph.initializer if each.name == "w"), "weights")
        onnx.save(model, tmp_path / "net.onnx")
        digests.append(open_subject(str(tmp_path / "net.onnx"), described=PLAIN).digest)
        assert (tmp_path / "weights").stat().st_size == 12
    assert digests[0] != digests[1]


def test_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    probed = open_subject(write_onnx(tmp_path / "net.onnx", weight=float("nan")), described=PLAIN)
    with pytest.raises(InputError, match="pooled holds nan or infinity for 5 of 5 frames"):
        probed(FRAMES)


# Public encoders by name


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_public_encoder_sees_frames_as_it_was_trained_to(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(1)
    model = timm.create_model(TINY_TIMM)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": model.state_dict()}, path)
    else:
        save_file(model.state_dict(), path)
    probed = open_subject(f"timm:{TINY_TIMM}@{path}")
    trained = model.pretrained_cfg
    pixels = torch.from_numpy(resized_by_torch(FRAMES, trained["input_size"][1:])) / 255
    pixels = (pixels - torch.tensor(trained["mean"]).view(3, 1, 1)) / torch.tensor(trained["std"]).view(3, 1, 1)
    with torch.no_grad():
        wanted = model.eval().forward_features(pixels).mean((2, 3)).numpy()
    np.testing.assert_allclose(probed(FRAMES)["pooled"], wanted, rtol=1e-3, atol=1e-4)
    assert (probed.about.kind, probed.about.name) == ("timm", TINY_TIMM)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("timm:resnet18@none.safetensors", "no file 'none.safetensors'"),
        ("timm:resnot18@{here}", "unknown backbone 'resnot18'"),
        ("timm:resnet18.no_such_tag@{here}", "no_such_tag"),
    ],
)
def test_a_public_encoder_that_is_not_there_is_said(source: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        open_subject(source.format(here=__file__))
    assert message in str(caught.value)


@pytest.mark.slow
def test_without_a_network_the_remedy_is_a_file(tmp_path: Path) -> None:
    code = (
        "from robossl.probes.subjects import open_subject\n"
        "from robossl.errors import ResourceError\n"
        f"try: open_subject('timm:{TINY_TIMM}')\n"
        "except ResourceError as error: print(error)\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"cannot download the weights of {TINY_TIMM} (")
    assert f"pass timm:{TINY_TIMM}@FILE.safetensors" in done.stdout


# References


def test_pooled_pixels_are_16_by_16_colours() -> None:
    frames = np.repeat(np.repeat(np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3), 3, 1), 3, 2)
    pooled = pixels_reference()(frames)["pooled"]
    assert pooled.shape == (2, 768)
    flat = pixels_reference()(np.full((1, 48, 64, 3), 51, np.uint8))["pooled"]
    np.testing.assert_allclose(flat, 0.2, rtol=1e-5)
    assert np.corrcoef(pooled.reshape(2, -1)[0], frames[0, 1::3, 1::3].reshape(-1))[0, 1] > 0.9


def test_the_random_reference_is_the_encoders_own_backbone_where_it_is_known(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone=TINY_TIMM, input_hw=(32, 32)))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={})
    probed = open_subject(str(tmp_path / "run"))
    random, other = random_reference(probed, seed=0), random_reference(probed, seed=1)
    assert random.about.name == f"random {TINY_TIMM}"
    assert random.about.dim == probed.about.dim
    assert not np.allclose(random(FRAMES)["pooled"], other(FRAMES)["pooled"])
    assert len({random.digest, other.digest, probed.digest}) == 3
    unknown = open_subject(write_onnx(tmp_path / "net.onnx"), described=PLAIN)
    assert random_reference(unknown).about.name == "random resnet18"
    assert random_reference(unknown).input_hw == (24, 32)


# Features on disk


class Counting:
    """Mean colours and a map of them; stops after so many frames."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.seen, self.largest, self._stop_after = 0, 0, stop_after

    def __call__(self, frames: ndarray) -> dict[str, ndarray]:
        if self.seen + len(frames) > self._stop_after:
            raise ResourceError("stopped")
        self.seen += len(frames)
        self.largest = max(self.largest, len(frames))
        mean = frames.mean((1, 2))
        return {"pooled": mean, "dense": mean[:, :, None, None]}


def probed_by(embed: Counting) -> Probed:
    about = Subject("counting", "here", "onnx", "a" * 64, "mean", 3, "float32", "none")
    return Probed(about, "b" * 64, embed, ("pooled", "dense"))


def test_features_are_embedded_once(tmp_path: Path) -> None:
    views, embed, told = write_views(tmp_path), Counting(), []
    for _ in range(2):
        found = list(features(probed_by(embed), views, tmp_path / "cache", watch=lambda *each: told.append(each)))
    assert embed.seen == 300
    assert embed.largest <= CHUNK
    assert told[-1] == ("embed with counting", 300, 300)
    assert [set(each) for each in found] == [{"pooled"}] * 2
    for view, each in zip(views, found, strict=True):
        assert isinstance(each["pooled"], np.memmap)
        np.testing.assert_allclose(each["pooled"], np.load(view.path).mean((1, 2)), rtol=1e-5)
    wider = [ViewFile(views[0].path, views[0].digest, ("pooled", "dense"))]
    both = next(features(probed_by(embed), wider, tmp_path / "cache"))
    assert both["dense"].shape == (150, 3, 1, 1)


@pytest.mark.parametrize("torn", [0, 5])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, torn: int) -> None:
    views = [ViewFile(each.path, each.digest, ("pooled", "dense")) for each in write_views(tmp_path, num_views=1)]
    with pytest.raises(ResourceError, match="stopped"):
        list(features(probed_by(Counting(stop_after=2 * CHUNK)), views, tmp_path / "cache"))
    part = next((tmp_path / "cache").rglob("*pooled.part"))
    with part.open("ab") as file:
        file.truncate(part.stat().st_size - torn)  # a write that was cut off
    embed = Counting()
    found = next(features(probed_by(embed), views, tmp_path / "cache"))
    assert embed.seen == 150 - 2 * CHUNK + bool(torn)  # the torn row again
    np.testing.assert_allclose(found["pooled"], np.load(views[0].path).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["dense"][:, :, 0, 0], found["pooled"])
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_part_of_other_frames_is_not_continued(tmp_path: Path) -> None:
    views = write_views(tmp_path, num_views=1, num_frames=200)
    with pytest.raises(ResourceError):
        list(features(probed_by(Counting(stop_after=CHUNK)), views, tmp_path / "cache"))
    np.save(views[0].path, np.load(views[0].path)[:100])
    embed = Counting()
    assert next(features(probed_by(embed), views, tmp_path / "cache"))["pooled"].shape == (100, 3)
    assert embed.seen == 100


def test_two_probes_of_one_encoder_do_not_write_at_once(tmp_path: Path) -> None:
    views = write_views(tmp_path)
    going = features(probed_by(Counting()), views, tmp_path / "cache")
    next(going)
    with pytest.raises(ResourceError, match="another probe of this encoder is writing"):
        next(features(probed_by(Counting()), views, tmp_path / "cache"))
    going.close()
    next(features(probed_by(Counting()), views, tmp_path / "cache"))
