"""examples/learning_curve.py, tiny: trains, keeps what is finished, refuses other settings. Needs Stable-Baselines3."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from places import ROOT

from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder

pytestmark = pytest.mark.filterwarnings("default")  # Stable-Baselines3 warns of a small first rollout
SMALL = ["--steps", "120", "--every", "60", "--test-episodes", "1", "--image-size", "32", "--stack", "2"]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "learning_curve.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "mine"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32)))
    save_encoder(encoder, folder / "encoder", extra={"method": "simclr", "step": 1, "data": []})
    return folder


@pytest.mark.parametrize("algorithm", ["sac", "ppo"])
def test_curves_are_made_and_finished_ones_are_kept(
    example: ModuleType, algorithm: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("stable_baselines3", reason="needs stable-baselines3: make lerobot installs it")
    line = [str(run), "--algorithm", algorithm, "--out", str(tmp_path), *SMALL]
    example.main([*line, "--seeds", "0"])
    first = {path.name: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert set(first) == {"encoder-seed0.json", "random-seed0.json", "state-seed0.json"}
    cell = json.loads(first["encoder-seed0.json"])
    assert [point["step"] for point in cell["curve"]] == [0, 60, 120]
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    (tmp_path / "cells" / "random-seed0.json").unlink()  # as if it had been killed there
    capsys.readouterr()
    example.main([*line, "--seeds", "0"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "cells").iterdir()} == first
    assert "mine" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"was made with another settings; choose another --out"):
        example.main([*line, "--seeds", "0", "--steps", "60"])


def test_without_stable_baselines3_the_example_says_how_to_install_it(
    example: ModuleType, run: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("stable_baselines3"):
        pytest.skip("stable-baselines3 is installed here")
    with pytest.raises(SystemExit, match=r"pip install 'stable-baselines3>=2.7'"):
        example.main([str(run), "--out", str(tmp_path), *SMALL])
