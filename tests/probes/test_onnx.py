"""ONNX models of others: their input as described, and one line for what cannot be known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy import ndarray
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data
from onnx_kit import write_onnx

from robossl.errors import InputError
from robossl.exporting.parity import natural_frames
from robossl.measure.subjects import InputDescription, open_subject, random_reference
from robossl.measure.subjects.subject import Backbone

FRAMES = natural_frames(5, (40, 56), seed=3)
PLAIN = InputDescription(range="0-1")


def resized_by_torch(frames: ndarray, hw: tuple[int, int]) -> ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return torch.nn.functional.interpolate(pixels, hw, mode="bilinear", antialias=True).numpy()


@pytest.mark.parametrize(
    ("shape", "said", "expected"),
    [
        (("b", 3, 24, 32), PLAIN, lambda x: x / 255),
        ((2, 3, 24, 32), InputDescription(range="0-255"), lambda x: x),  # batches of 2, the last one filled up
        (("b", 24, 32, 3), PLAIN, lambda x: x / 255),
        (("b", 3, "h", "w"), InputDescription(range="0-1", size=(24, 32)), lambda x: x / 255),
        (("b", "c", 24, 32), InputDescription(range="0-1", layout="nchw"), lambda x: x / 255),
        (("b", 3, 24, 32), InputDescription(range="0-1", order="bgr"), lambda x: x[:, ::-1] / 255),
        (
            ("b", 3, 24, 32),
            InputDescription(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)),
            lambda x: (
                (x / 255 - np.array([0.5, 0.4, 0.3]).reshape(3, 1, 1)) / np.array([0.2, 0.2, 0.1]).reshape(3, 1, 1)
            ),
        ),
    ],
)
def test_frames_reach_a_model_as_described(
    tmp_path: Path, shape: tuple[int | str, ...], said: InputDescription, expected: Callable[[ndarray], ndarray]
) -> None:
    probed = open_subject(write_onnx(tmp_path / "net.onnx", shape=shape), described=said)
    wanted = expected(resized_by_torch(FRAMES, (24, 32))) * np.array([1, 2, 3]).reshape(3, 1, 1)
    found = probed(FRAMES)
    np.testing.assert_allclose(found["dense"], wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["pooled"], wanted.mean((2, 3)), rtol=1e-4, atol=1e-4)
    assert (probed.info.name, probed.info.dim, probed.info.kind) == ("net", 3, "onnx")


def test_a_graph_that_takes_bytes_of_any_size_needs_no_words(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", shape=("b", "h", "w", 3), dtype=TensorProto.UINT8)
    probed = open_subject(source)
    np.testing.assert_allclose(probed(FRAMES)["pooled"], FRAMES.mean((1, 2)) * [1, 2, 3], rtol=1e-5)
    assert probed.info.preprocessing == "frames as they are; rgb nhwc uint8 in 0-255"


def test_a_vector_and_a_map_may_be_two_outputs(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx", outputs=("map", "vector"))
    alone = open_subject(source, described=InputDescription(range="0-1", output="vector"))
    both = open_subject(source, described=InputDescription(range="0-1", output="vector", dense="map"))
    assert (alone.outputs, both.outputs) == (("pooled",), ("pooled", "dense"))
    assert alone.digest != both.digest
    np.testing.assert_allclose(both(FRAMES)["pooled"], both(FRAMES)["dense"].mean((2, 3)), rtol=1e-4)


@pytest.mark.parametrize("shape", [("b", 32, 32, 3), ("b", 3, 32, 32)])
def test_a_map_whose_channels_lie_elsewhere_is_not_pooled_over_them(tmp_path: Path, shape: tuple[Any, ...]) -> None:
    source = write_onnx(tmp_path / "net.onnx", shape=shape, outputs=("turned",))
    with pytest.raises(InputError, match=r"which looks like (nchw|nhwc); pass --input.output-layout"):
        open_subject(source, described=PLAIN)
    layout: Any = "nchw" if shape[-1] == 3 else "nhwc"
    probed = open_subject(source, described=InputDescription(range="0-1", output_layout=layout))
    plain = open_subject(write_onnx(tmp_path / "plain.onnx", shape=shape), described=PLAIN)
    for name in ("pooled", "dense"):
        np.testing.assert_allclose(probed(FRAMES)[name], plain(FRAMES)[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "said", "message"),
    [
        ({"shape": ("b", "c", "h", "w")}, PLAIN, "is an ONNX model with unknown layout"),
        ({"shape": ("b", 3, 24, 3)}, PLAIN, "is an ONNX model with unknown layout"),
        ({"shape": ("b", 3, 24, 32)}, InputDescription(layout="nhwc"), "is not nhwc of 3 colours"),
        ({"shape": ("b", 3, "h", "w")}, PLAIN, "pass the size it was trained at"),
        ({"shape": ("b", 3, 24, 32)}, InputDescription(range="0-1", size=(9, 9)), "takes frames of 24x32 only"),
        ({}, InputDescription(range="0-1", size=(-5, 32)), "size must be two numbers of 1 or more, got -5 32"),
        ({}, InputDescription(), "its graph does not say their scale"),
        ({}, InputDescription(mean=(0.0, 0.0, 0.0)), "mean and std belong together"),
        ({}, InputDescription(mean=(123.0, 117.0, 104.0), std=(58.0, 57.0, 57.0)), "pass range 0-255"),
        ({}, InputDescription(mean=(0.5, 0.5, 0.5), std=(0.0, 1.0, 1.0)), "do not fit pixels in 0-1"),
        ({"dtype": TensorProto.UINT8}, PLAIN, "takes bytes and scales them itself"),
        ({"dtype": TensorProto.INT64}, PLAIN, "takes tensor(int64), not pixels"),
        ({"outputs": ("map", "vector")}, PLAIN, "has 2 outputs; say which is probed"),
        ({"outputs": ("map", "vector")}, InputDescription(range="0-1", output="vektor"), "did you mean 'vector'"),
    ],
)
def test_what_cannot_be_known_is_refused_in_one_line(
    tmp_path: Path, options: dict[str, Any], said: InputDescription, message: str
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


def test_the_random_reference_of_an_unknown_backbone_is_a_resnet_and_says_so(tmp_path: Path) -> None:
    unknown = open_subject(write_onnx(tmp_path / "net.onnx"), described=PLAIN)
    random = random_reference(unknown)
    assert random.info.name == "random resnet18"
    assert random.backbone == Backbone("resnet18", "stand-in")
    assert random.input_hw == (24, 32)


def named(path: Path, *, graph: str = "g", **metadata: str) -> str:
    """A model whose graph and metadata have names."""
    model = onnx.load(write_onnx(path, shape=("b", 3, 32, 32)))
    model.graph.name = graph
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return str(path)


@pytest.mark.parametrize(
    ("file", "graph", "metadata", "told", "wanted"),
    [
        ("net.onnx", "g", {"backbone": "test_resnet"}, None, Backbone("test_resnet", "metadata")),
        ("net.onnx", "g", {"hf_hub_id": "timm/test_vit.r160_in1k"}, None, Backbone("test_vit", "metadata")),
        ("net.onnx", "test_vit", {}, None, Backbone("test_vit", "metadata")),
        ("resnet50.onnx", "g", {"arch": "test_resnet"}, None, Backbone("test_resnet", "metadata")),
        ("net.onnx", "g", {"arch": "test_resnet"}, "test_vit", Backbone("test_vit", "option")),
        ("test-resnet.onnx", "torch_jit", {"author": "us"}, None, Backbone("test_resnet", "file name")),
        ("test_vit/model.onnx", "main_graph", {}, None, Backbone("test_vit", "file name")),
        ("net.onnx", "g", {"student": "test_vit", "teacher": "test_resnet"}, None, Backbone("resnet18", "stand-in")),
        ("net.onnx", "g", {"precision": "fp16"}, None, Backbone("resnet18", "stand-in")),
    ],
)
def test_the_random_reference_is_the_network_that_is_named(
    tmp_path: Path, file: str, graph: str, metadata: dict[str, str], told: str | None, wanted: Backbone
) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    source = named(tmp_path / file, graph=graph, **metadata)
    random = random_reference(open_subject(source, described=InputDescription(range="0-1", backbone=told)))
    assert random.backbone == wanted
    assert random.info.name == f"random {wanted.name}"
    assert random(FRAMES)["pooled"].shape == (5, random.info.dim)


def test_a_network_that_cannot_see_frames_of_that_size_is_replaced_unless_it_was_asked_for(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "vit_small_patch16_224.onnx", shape=("b", 3, 24, 32))
    random = random_reference(open_subject(source, described=PLAIN))
    assert random.backbone == Backbone("resnet18", "stand-in")
    asked = open_subject(source, described=InputDescription(range="0-1", backbone="vit_small_patch16_224"))
    with pytest.raises(InputError):
        random_reference(asked)


def test_a_network_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    source = write_onnx(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="unknown backbone 'resnt18'; did you mean 'resnet18'"):
        open_subject(source, described=InputDescription(range="0-1", backbone="resnt18"))
