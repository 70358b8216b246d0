"""`robossl serve --dry-run` says what a server would ask of onnxruntime; models of fixed batch are served filled up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from robossl_client.client import EncoderClient
from robossl_serving.server import ServerSettings
from serving_kit import build_tiny, copy_version, serving

from robossl.cli.main import main
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.inference import load_encoder
from robossl.exporting.export import export
from robossl.exporting.parity import natural_frames


def run(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> str:
    assert main(["serve", *map(str, argv)]) == code
    said = capsys.readouterr()
    return said.err if code else said.out


def test_options_are_shown_without_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models, cache = tmp_path / "models", tmp_path / "cache"
    for version in (1, 2):
        build_tiny(models, version=version, fixed_hw=(48, 64))
    ask = [models, "--dry-run", "--gpu.cache", cache]
    text = run(capsys, *ask, "--provider", "tensorrt", "--gpu.precision", "fp16", "--gpu.best-batch", 4)
    assert "tiny version 2, batches of up to 64" in text and "version 1" not in text
    rows = {words[0]: words[1] for line in text.splitlines() if len(words := line.split()) == 2}
    assert rows["trt_fp16_enable"] == "True" and rows["trt_profile_opt_shapes"] == "frames:4x48x64x3"
    assert f"engines will be built in {cache}" in text and not cache.exists()
    plan = json.loads(run(capsys, *ask, "--provider", "cuda", "--json"))
    assert [row["version"] for row in plan["models"]] == [2]
    ((name, options),) = plan["models"][0]["providers"]
    assert name == "CUDAExecutionProvider" and options["use_tf32"] == "0" and plan["versions"]["onnxruntime"]
    assert json.loads(run(capsys, *ask, "--provider", "cpu", "--json"))["models"][0]["engines"] is None


def test_what_does_not_fit_is_said(tmp_path: Path, tiny_models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_version(tiny_models, tmp_path / "models", 1)
    ask = [tmp_path / "models", "--dry-run"]
    assert "export it with --fixed-hw H W" in run(capsys, *ask, "--provider", "tensorrt", code=2)
    assert "--fixed-batch 1, or leave out --gpu.cuda-graph" in run(
        capsys, *ask, "--provider", "cuda", "--gpu.cuda-graph", code=2
    )
    assert "--json is for --dry-run" in run(capsys, tmp_path / "models", "--json", code=2)
    assert "there is no folder" in run(capsys, tmp_path / "absent", "--dry-run", code=2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_model_of_fixed_batch_is_served(tmp_path: Path, batch: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64), zero_init_last=False))
    save_encoder(encoder, tmp_path / "run" / "encoder", extra={})
    export(tmp_path / "run", out=tmp_path / "models", name="mine", fixed_hw=(48, 64), fixed_batch=batch)
    frames = natural_frames(batch, (48, 64), seed=0)
    with serving(tmp_path / "models", ServerSettings(port=0)) as server, EncoderClient(server.address) as client:
        assert client.card.input.tensor.shape[0] == batch
        for num in range(1, batch + 1):
            features = client.encode(frames[:num]).features
            for name, values in load_encoder(tmp_path / "run")(frames[:num]).items():
                np.testing.assert_allclose(features[name], values, rtol=1e-3, atol=1e-4)
