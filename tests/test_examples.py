"""The examples run: as a person would start them, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from places import ROOT
from robossl_client.card import EncoderCard, Parity
from serving_kit import copy_version, serving


def run(name: str, *arguments: object) -> str:
    line = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_control_loop_drives_an_environment(tiny_models: Path) -> None:
    with serving(tiny_models) as server:
        said = run(
            "control_loop.py",
            *("--target", f"127.0.0.1:{server.port}", "--demonstrations", 2, "--episodes", 2, "--steps", 20),
        )
    assert re.search(r"expert: \d of 2 episodes succeeded, \d\d frames", said)
    assert "ridge regression on 48 features of tiny 2" in said
    found = re.search(
        r"are ([\d.]+) ms old at the median, .*; (\d+) of (\d+) ticks missed the deadline of 100 ms", said
    )
    assert found is not None, said
    assert 0 < float(found[1]) < 100
    assert int(found[2]) < int(found[3]) <= 40


def test_a_policy_is_learned_by_ridge_regression() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("control_loop", ROOT / "examples" / "control_loop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["control_loop"] = module
    spec.loader.exec_module(module)
    rng = np.random.default_rng(0)
    inputs, weights = rng.standard_normal((500, 12)), 0.1 * rng.standard_normal((12, 2))
    policy = module.fit_ridge(inputs, inputs @ weights, strength=1e-3)
    np.testing.assert_allclose(policy(inputs[0, :8], inputs[0, 8:]), inputs[0] @ weights, atol=1e-3)
    assert np.abs(policy(100 * np.ones(8), np.ones(4))).max() <= 1


def test_what_is_served_is_compared_with_onnxruntime(tiny_models: Path, tmp_path: Path) -> None:
    models = copy_version(tiny_models, tmp_path / "models", 1)
    path = models / "tiny" / "1" / "card.json"
    parity = Parity("cpu", (1,), ((60, 80),), {}, 0.99999, 1e-4)
    replace(EncoderCard.read(path), parity=parity).write(path)
    clip = sorted((ROOT / "tests" / "data" / "droid").rglob("*.mp4"))[0]
    said = run("serve_and_ask.py", models, clip)
    assert "20 frames of" in said
    assert "the card allows 1e-04" in said
    assert "server: draining" not in said.split("20 frames of")[1]
