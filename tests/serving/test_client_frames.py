"""What is no frame: every way in says so in one line, before anything is sent."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image
from robossl_client.client import EncoderClient
from robossl_client.errors import RequestError
from robossl_serving.server import EncoderServer, ServerSettings
from serving_kit import FRAMES, build_tiny, serving

JPEG = simplejpeg.encode_jpeg(FRAMES[0])


@pytest.fixture(scope="module")
def server(tiny_models: Path) -> Iterator[EncoderServer]:
    with serving(tiny_models, ServerSettings(port=0, shared_memory=True)) as server:
        yield server


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        (JPEG, "bytes; pass one image as [image]"),
        (bytearray(JPEG), "bytearray; pass one image as [image]"),
        ("frame.jpg", "str"),
        (Path("frame.jpg"), "PosixPath"),
        (None, "None"),
        (7, "int"),
        ({"wrist": FRAMES[0]}, "dict"),
        (Image.fromarray(FRAMES[0]), "Image"),
        (io.BytesIO(JPEG), "BytesIO"),
        (iter([JPEG]), "list_iterator"),
        ([], "an empty list"),
        ((), "an empty tuple"),
        ([FRAMES[0], FRAMES[1]], "a list with an array (60, 80, 3) at 0; pass np.stack(frames)"),
        ([JPEG, FRAMES[0]], "a list with an array (60, 80, 3) at 1; pass np.stack(frames)"),
        ([JPEG, "frame.jpg"], "a list with str at 1"),
        ([None], "a list with None at 0"),
        ([[JPEG]], "a list with list at 0"),
        (FRAMES[0], "uint8 (60, 80, 3); pass frame[None]"),
        (FRAMES[..., :1], "uint8 (3, 60, 80, 1)"),
        (FRAMES[:0], "uint8 (0, 60, 80, 3)"),
        (FRAMES.astype(np.float32), "float32 (3, 60, 80, 3)"),
        (np.frombuffer(JPEG, np.uint8), f"uint8 ({len(JPEG)},)"),
        (np.array(None), "object ()"),
    ],
)
@pytest.mark.parametrize("is_shared", [False, True])
def test_what_is_no_frame_is_said(server: EncoderServer, frames: Any, got: str, is_shared: bool) -> None:
    words = "frames must be uint8 RGB (b, h, w, 3), b at least 1, or a list of JPEGs or PNGs as bytes; got "
    with (
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm", shared_memory=is_shared) as client,
        client.latest() as stream,
    ):
        for ask in (client, client.encode, stream.send):
            with pytest.raises(RequestError, match=f"^{re.escape(words)}{re.escape(got)}") as caught:
                ask(frames)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [[JPEG], (JPEG,), [bytearray(JPEG)], [memoryview(JPEG)]])
def test_images_are_taken_in_any_bytes(server: EncoderServer, images: Any) -> None:
    with EncoderClient(f"127.0.0.1:{server.port}", deadline_ms=20_000) as client:
        np.testing.assert_array_equal(client(images)["pooled"], client([JPEG])["pooled"])


@pytest.mark.parametrize(
    ("frames", "got"),
    [
        ({}, "no camera"),
        (None, "None"),
        ([FRAMES[0]], "list"),
        (FRAMES, "ndarray"),
        ({"wrist": JPEG}, "'wrist': bytes"),
        ({"wrist": None}, "'wrist': None"),
        ({"wrist": FRAMES}, "'wrist': (3, 60, 80, 3)"),
        ({3: FRAMES[0]}, "3: (60, 80, 3)"),
    ],
)
def test_what_are_no_cameras_is_said(server: EncoderServer, frames: Any, got: str) -> None:
    words = "pass a dict of camera name to uint8 RGB frame (h, w, 3); got "
    with (
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client,
        pytest.raises(RequestError, match=f"^{re.escape(words)}{re.escape(got)}$"),
    ):
        client.encode_cameras(frames)


def test_cameras_of_another_type_are_said(server: EncoderServer) -> None:
    with (
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client,
        pytest.raises(RequestError, match=r"frames must be uint8 RGB .* got float64 \(1, 9, 9, 3\)"),
    ):
        client.encode_cameras({"wrist": np.zeros((9, 9, 3))})


def test_a_size_that_the_encoder_does_not_take_is_said_before_it_is_sent(tmp_path: Path) -> None:
    build_tiny(tmp_path, version=1, fixed_hw=(60, 80))
    with (
        serving(tmp_path) as server,
        EncoderClient(f"127.0.0.1:{server.port}", robot="arm", deadline_ms=20_000) as client,
        client.latest() as stream,
    ):
        assert client.encode(FRAMES).features
        for ask in (client.encode, client, stream.send):
            with pytest.raises(RequestError, match=r"frames of 60x80 only, got \(1, 9, 9, 3\); resize them"):
                ask(np.zeros((1, 9, 9, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": ""}, "the target must be host:port"),
        ({"target": None}, "the target must be host:port .*, got None"),
        ({"target": "localhost:70000"}, "a port of 1 to 65535, got 'localhost:70000'"),
        ({"target": "localhost:0"}, "a port of 1 to 65535"),
        ({"deadline_ms": float("nan")}, "deadline_ms must be a finite number of milliseconds, got nan"),
        ({"deadline_ms": "20"}, "deadline_ms must be a finite number of milliseconds, got '20'"),
        ({"connect_ms": float("inf")}, "connect_ms must be a finite number of milliseconds, got inf"),
    ],
)
def test_arguments_that_cannot_be_used_are_said(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        EncoderClient(**options)


def test_waits_that_cannot_be_used_are_said(server: EncoderServer) -> None:
    with EncoderClient(f"127.0.0.1:{server.port}", robot="arm") as client, client.latest() as stream:
        for wait_ms in (float("nan"), float("inf"), None):
            with pytest.raises(RequestError, match="wait_ms must be a finite number"):
                stream.take(wait_ms=wait_ms)
        with pytest.raises(RequestError, match="deadline_ms must be a finite number"):
            client.encode(FRAMES, deadline_ms=float("nan"))
