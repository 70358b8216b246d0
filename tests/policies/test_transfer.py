"""`robossl transfer`: encoders of known quality are ordered rightly, equal seeds give equal bits, killed runs go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from chase_env import read_places
from onnx import TensorProto
from onnx_kit import write_onnx
from safetensors.torch import load_file

import robossl
from robossl.cli.main import main
from robossl.common.progress import Progress
from robossl.data.video import Video
from robossl.measure.subjects import Subject, pixels_reference
from robossl.policies.document import json_schema, read_result, to_json
from robossl.policies.entrants import Entrant, EntrantOptions, make_entrants
from robossl.policies.kept import KeptWork
from robossl.policies.policy import PolicyInputs
from robossl.policies.result import TransferResult, TransferSettings
from robossl.policies.run import Measurement, conditions_of, measure
from robossl.policies.simulator import open_simulator

CHASE: dict[str, Any] = {"env": "kit/Chase-v0", "module": ("chase_env",), "workers": 1, "action_noise": 1.0}
QUICK: dict[str, Any] = {"demos": 2, "seeds": 2, "rollouts": 3, "steps": 20, "network_steps": 2, "factors": ("dark",)}
WORDS = "--env kit/Chase-v0 --module chase_env --workers 1 --action-noise 1.0"


def subject(name: str, embed: Any) -> Subject:
    return replace(pixels_reference(), embed=lambda frames: {"pooled": embed(frames)}, digest=name)


def entrant(name: str, seen: Subject | None) -> Entrant:
    inputs = PolicyInputs("state") if seen is None else PolicyInputs("none", "mlp", seen)
    return Entrant(name, "control" if seen is None else "encoder", name, name, lambda seed: inputs)


def test_encoders_of_known_quality_are_ordered(tmp_path: Path) -> None:
    settings = TransferSettings(
        env="kit/Chase-v0", demos=30, action_noise=1.0, head="mlp", tune="frozen", proprioception=False, stack=1,
        steps=400, network_steps=1, rollouts=40, image_size=32, seed=0,
    )  # fmt: skip
    entrants = [
        entrant("reader", subject("reader", read_places)),
        entrant("pixels", pixels_reference()),
        entrant("constant", subject("constant", lambda frames: np.ones((len(frames), 4), np.float32))),
        entrant("state", None),
    ]
    with open_simulator("kit/Chase-v0", workers=1, image_size=32, module=("chase_env",)) as simulator:
        kept, conditions = KeptWork(tmp_path, settings), conditions_of((), ())
        task = Measurement(settings, 1, conditions, simulator, kept, "cpu", Progress(quiet=True), 4 * 40)
        result = measure(task, entrants, command="")
    success = {row.name: row.scores[0].success for row in result.rows}
    assert min(success["reader"], success["state"]) > 0.8, success
    assert success["reader"] - 0.1 > success["pixels"] > success["constant"] + 0.1, success
    reader, _, constant, _ = result.rows
    assert constant.differences[0].high < 0 < reader.differences[0].high + 0.1
    assert "constant minus, in points" in str(result) and "*" in str(result)


def run(out: Path, **changes: Any) -> TransferResult:
    return robossl.transfer("random:test_resnet", out=out, **{**CHASE, **QUICK, **changes})


def bare(result: TransferResult) -> str:
    """Return the JSON without the command, which names the folder."""
    return to_json(replace(result, command=""))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TransferResult]:
    out = tmp_path_factory.mktemp("transfer") / "reference"
    return out, run(out)


def test_equal_seeds_give_equal_bits(reference: tuple[Path, TransferResult], tmp_path: Path) -> None:
    out, first = reference
    again = run(tmp_path / "again", workers=2)
    assert bare(again) == bare(first)
    weights = sorted(out.rglob("policy.safetensors"))
    assert len(weights) == 2 * len(first.rows)
    for path in weights:
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(out)).read_bytes(), path
    assert all(len(set(row.losses)) == 2 for row in first.rows)  # the seeds differ


def test_all_controls_are_there(tmp_path: Path, reference: tuple[Path, TransferResult]) -> None:
    names = [row.name for row in reference[1].rows]
    assert names == ["random test_resnet", "pooled pixels", "small ConvNet", "state", "proprioception"]
    options = EntrantOptions("mlp", "frozen", proprioception=False, device="cpu")
    rows = make_entrants(["random:test_resnet"], options, has_own_state=False)
    assert [row.name for row in rows if row.kind == "control"] == ["pooled pixels", "small ConvNet", "state"]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_result(reference: tuple[Path, TransferResult], tmp_path: Path) -> None:
    out = tmp_path / "killed"
    words = f"--encoders random:test_resnet {WORDS} --demos 2 --seeds 2 --rollouts 3 --steps 20 --network-steps 2"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "robossl", "transfer", *words.split(), "--factors", "dark", "--out", str(out)]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.rglob("dark3.json"))) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*.json")}
    assert kept and not (out / "transfer.json").exists()
    assert bare(run(out)) == bare(reference[1])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_folder_is_extended_but_not_mixed(reference: tuple[Path, TransferResult]) -> None:
    out, first = reference
    more = run(out, strengths=(3, 5))
    assert [(each.factor, each.strength) for each in more.rows[0].scores] == [("clean", 0), ("dark", 3), ("dark", 5)]
    assert more.rows[0].scores[:2] == first.rows[0].scores
    with pytest.raises(robossl.InputError, match="holds a measurement with --demos 2, got 4; choose another --out"):
        run(out, demos=4)


def test_the_file_follows_its_schema(reference: tuple[Path, TransferResult]) -> None:
    path = reference[0] / "transfer.json"
    schema = json.loads(files("robossl.policies").joinpath("schema.json").read_text())
    assert schema == json_schema(), "run python -m robossl.policies.document > robossl/policies/schema.json"
    jsonschema.validate(json.loads(path.read_text()), schema)
    assert to_json(read_result(reference[0])) == path.read_text()
    path_of_old = reference[0] / "old.json"
    path_of_old.write_text(path.read_text().replace("robossl.transfer/1", "robossl.transfer/0"))
    with pytest.raises(robossl.InputError, match=r"has schema 'robossl\.transfer/0'"):
        read_result(path_of_old)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--encoders random:test_resnet --env kit/Chaes-v0", "no environment 'kit/Chaes-v0' is registered"),
        (f"--encoders random:test_resnet {WORDS} --factors drak", "unknown factor of kit/Chase-v0 'drak'; did you"),
        (f"--encoders random:test_resnet {WORDS} --factors rotation", "unknown factor of kit/Chase-v0 'rotation'"),
        (f"--encoders random:test_resnet {WORDS} --factors dark --strengths 6", "--strengths must be 1 to 5, got 6"),
        (f"--encoders random:test_resnte {WORDS}", "test_resnte"),
        (f"--encoders nowhere {WORDS}", "nowhere"),
        (f"--encoders random:test_resnet random:test_resnet {WORDS}", "is named twice"),
        (f"--encoders random:test_resnet {WORDS} --head mpl", "unknown head 'mpl'; did you mean 'mlp'?"),
        (f"--encoders random:test_resnet {WORDS} --rollouts 0", "rollouts must be 1 or more, got 0"),
        (f"--encoders grpc://robot:1/mine {WORDS} --tune last", "--tune last needs weights that can be trained"),
        ("--encoders random:test_resnet --env CartPole-v1", "policy needs a bounded Box of floats"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    words: str, said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["transfer", *words.split(), "--out", str(tmp_path / "out")]) == 2
    error = capfd.readouterr().err.strip()
    assert said in error and "\n" not in error
    assert not (tmp_path / "out" / "settings.json").exists()


def test_the_page_shows_every_row_and_its_films(reference: tuple[Path, TransferResult]) -> None:
    out, result = reference
    page = (out / "index.html").read_text()
    assert all(row.name in page for row in result.rows) and "minus the controls" in page
    films = sorted(each.split('"')[0] for each in page.split('video src="')[1:])
    assert films and all((out / each).is_file() for each in films)
    assert {Path(each).name.split("_")[0] for each in films} >= {"clean0", "dark3"}
    film = next(path for path in out.rglob("clean0_failure.mp4"))
    rollouts = json.loads((film.parent / "clean0.json").read_text())["rollouts"]
    lost = next(each for each in rollouts if not each["success"])
    assert sum(1 for _ in Video(film).frames()) == lost["num_steps"]


def test_an_encoder_is_trained_with_its_policy(tmp_path: Path) -> None:
    result = run(tmp_path, tune="last", head="keypoints", seeds=1, demos=1, rollouts=1, factors=(), stack=2)
    assert [row.name for row in result.rows][:2] == ["random test_resnet", "pooled pixels"]
    weights = load_file(next(tmp_path.rglob("random_test_resnet*/**/policy.safetensors")))
    assert any(name.startswith("vision.encoder.") for name in weights)


def test_a_head_without_its_feature_map_is_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "net.onnx", dtype=TensorProto.UINT8, outputs=("vector",))
    with pytest.raises(robossl.InputError, match=r"--head keypoints reads a feature map \(dense\), and .* has none"):
        robossl.transfer(model, out=tmp_path / "out", head="keypoints", **CHASE)
    assert not (tmp_path / "out" / "settings.json").exists()


@pytest.mark.slow
def test_the_state_solves_the_reaching_task(tmp_path: Path) -> None:
    result = robossl.transfer("random:test_resnet", env="robossl/Reach-v0", out=tmp_path, seeds=1, network_steps=1)
    state = next(row for row in result.rows if row.name == "state")
    assert state.scores[0].success >= 0.95
