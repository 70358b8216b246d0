"""examples/encoded_policy.py, tiny: behind an encoder in torch and behind a server."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import ROOT
from serving_kit import serving

from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder

SMALL = ["--episodes", "60", "--test-episodes", "8", "--image-size", "32"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "encoded_policy.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rates(printed: str) -> dict[str, float]:
    return {name.strip(): float(rate) for name, rate in re.findall(r"^  (.+?) +success ([\d.]+)$", printed, re.M)}


@pytest.mark.slow
def test_behind_an_encoder_beside_its_references(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    save_encoder(encoder, tmp_path / "mine" / "encoder", extra={"method": "simclr", "step": 1, "data": []})
    example.main([str(tmp_path / "mine"), *SMALL, "--stack", "2"])
    found = rates(capsys.readouterr().out)
    assert list(found) == ["true state", "mine", "random test_resnet"]
    assert found["true state"] >= 0.5
    assert all(0 <= rate <= 1 for rate in found.values())


def test_behind_a_server(
    example: ModuleType, tiny_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_models, tmp_path / "models")
    for card in (tmp_path / "models").rglob("card.json"):
        card.write_text(card.read_text().replace('"backbone": "tiny"', '"backbone": "test_resnet"'))  # has a reference
    with serving(tmp_path / "models") as server:
        example.main(["--server", f"127.0.0.1:{server.port}", *SMALL, "--policy", "ridge"])
    assert list(rates(capsys.readouterr().out)) == ["true state", "tiny", "random test_resnet"]


def test_an_encoder_must_be_named(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main([])
    assert "name an encoder or a --server" in capsys.readouterr().err
