"""Whatever a person owns, opened for probing: real files, a real server, real stops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from numpy import ndarray
from probe_views_kit import write_views
from robossl_serving.server import ServerSettings
from safetensors.torch import save_file
from serving_kit import build_tiny, serving

from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.inference import load_encoder
from robossl.errors import InputError, ResourceError
from robossl.exporting.parity import natural_frames
from robossl.measure.features import embed_views
from robossl.measure.subjects import InputDescription, open_subject, pixels_reference, random_reference
from robossl.measure.subjects.served import open_served
from robossl.measure.subjects.subject import Backbone

FRAMES = natural_frames(5, (40, 56), seed=3)
TINY_TIMM = "test_resnet"
PLAIN = InputDescription(range="0-1")


def resized_by_torch(frames: ndarray, hw: tuple[int, int]) -> ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    return torch.nn.functional.interpolate(pixels, hw, mode="bilinear", antialias=True).numpy()


# Encoders of ours, in torch, exported, served


def test_a_run_folder_is_opened_with_both_its_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone=TINY_TIMM, input_hw=(32, 32), zero_init_last=False))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={})
    probed = open_subject(str(tmp_path / "run"))
    found = probed(FRAMES)
    assert (probed.info.name, probed.info.kind, probed.outputs) == ("run", "run", ("pooled", "dense"))
    assert found["pooled"].shape == (5, probed.info.dim)
    np.testing.assert_array_equal(found["pooled"], load_encoder(tmp_path / "run")(FRAMES)["pooled"])
    assert found["dense"].shape[:2] == (5, probed.info.dim)
    assert "to 32x32" in probed.info.preprocessing


def test_a_served_encoder_is_the_exported_one_and_is_cached_apart(tmp_path: Path) -> None:
    local = open_subject(str(build_tiny(tmp_path, version=1)))
    with serving(tmp_path, ServerSettings(port=0)) as server:
        served = open_subject(f"grpc://127.0.0.1:{server.port}/tiny")
        only = open_subject(f"grpc://127.0.0.1:{server.port}", outputs=("pooled",))
        np.testing.assert_allclose(served(FRAMES)["pooled"], local(FRAMES)["pooled"], rtol=1e-5)
        assert (local.info.kind, served.info.kind) == ("onnx", "grpc")
        assert local.info.sha256 == served.info.sha256
        assert local.digest != served.digest
        assert only.outputs == ("pooled",)
        with pytest.raises(InputError, match="nothing_here"):
            open_subject(f"grpc://127.0.0.1:{server.port}/nothing_here")


def test_a_server_that_stops_midway_loses_nothing(tmp_path: Path) -> None:
    build_tiny(tmp_path / "models", version=1)
    views, cache = write_views(tmp_path), tmp_path / "cache"
    with serving(tmp_path / "models", ServerSettings(port=0)) as server:
        source = f"grpc://127.0.0.1:{server.port}/tiny"
        probed = open_served(source, outputs=("pooled",), deadline_ms=5_000)
        going = embed_views(probed, views, cache)
        first = np.array(next(going)["pooled"])
        port = server.port
    with pytest.raises(ResourceError, match=r"does not answer .* run the same command again"):
        next(going)
    with pytest.raises(ResourceError, match="does not answer"):
        open_served(source, outputs=("pooled",), deadline_ms=300)
    kept = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    with serving(tmp_path / "models", ServerSettings(port=port)):
        again = [each["pooled"] for each in embed_views(open_served(source, outputs=("pooled",)), views, cache)]
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
    with pytest.raises(InputError, match="has a card that describes its input"):
        open_subject(str(tmp_path / "tiny"), described=PLAIN)


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
    assert (probed.info.kind, probed.info.name) == ("timm", TINY_TIMM)


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
        "from robossl.measure.subjects import open_subject\n"
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
    assert random.info.name == f"random {TINY_TIMM}"
    assert random.info.dim == probed.info.dim
    assert not np.allclose(random(FRAMES)["pooled"], other(FRAMES)["pooled"])
    assert len({random.digest, other.digest, probed.digest}) == 3
    assert random.backbone == Backbone(TINY_TIMM, "card")


def test_a_card_whose_backbone_timm_does_not_know_has_a_stand_in(tmp_path: Path) -> None:
    random = random_reference(open_subject(str(build_tiny(tmp_path, version=1))))
    assert random.backbone == Backbone("resnet18", "stand-in")
