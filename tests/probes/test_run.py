"""A probe end to end, from the command line: scenes of an environment, an encoder from three sources, a report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving_kit import build_tiny, serving

from robossl.cli.main import main
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.exporting.export import export
from robossl.probes.document import read_report
from robossl.probes.result import Report

FACTORS = ("brightness", "rot90", "hflip", "camera_shift")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random encoder as `run`, and exported in `models`."""
    out = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(1)
    encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(64, 64), zero_init_last=False))
    save_encoder(encoder, out / "run" / "encoder", extra={"method": "simsiam", "step": 1, "data": []})
    export(out / "run", out=out / "models", name="real")
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by the probes of these tests, as by those of a team."""
    return tmp_path_factory.mktemp("cache")


def probe(encoder: str | Path, out: Path, cache: Path, *factors: str) -> Report:
    line = ["probe", "run", str(encoder), "--data", "env:robossl/Push-v0", "--scenes", "160", "--image-size", "48"]
    line += ["--profile", "pose-estimation", "--quick", "--frames", "40"]
    line += ["--factors", *(factors or FACTORS)]
    assert main([*line, "--out", str(out), "--cache", str(cache)]) == 0
    return read_report(out / "report.json")


def figures(report: Report) -> dict[tuple[object, ...], float]:
    """Every value of a report, by what it is of."""
    cells = {(c.factor, c.level, c.metric): c.figure.value for c in report.readings.cells if c.metric != "drift_px"}
    kept = {(r.label, r.factor, r.level, r.head): r.figure.value for r in report.readings.retentions}
    return {key: value for key, value in (*cells.items(), *kept.items()) if value is not None}


def test_torch_onnx_and_grpc_read_alike(encoders: Path, cache: Path, tmp_path: Path) -> None:
    from_torch = figures(probe(encoders / "run", tmp_path / "torch", cache, *FACTORS[:2]))
    from_onnx = figures(probe(encoders / "models" / "real", tmp_path / "onnx", cache, *FACTORS[:2]))
    with serving(encoders / "models") as server:
        address = f"grpc://127.0.0.1:{server.port}/real"
        from_grpc = figures(probe(address, tmp_path / "grpc", cache, *FACTORS[:2]))
    assert len(from_torch) > 30
    for other in (from_onnx, from_grpc):
        assert other.keys() == from_torch.keys()
        assert max(abs(value - from_torch[key]) for key, value in other.items()) < 0.01


def test_a_report_has_what_was_asked_for_and_a_gate_reads_it(
    encoders: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = probe(encoders / "run", tmp_path, cache)
    assert json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)["schema"] == "robossl.probe/1"
    said = capsys.readouterr().out
    assert "clusters (scene) are judged" in said and "with features 0.0" in said and " minute" in said
    heads = {each.label: each.figure.value for each in report.readings.clean_heads}
    whole = {r.label: r.clean for r in report.readings.retentions if r.factor == "brightness" and r.head == "same"}
    assert heads.keys() == {"point", "angle"} and heads == whole, "what is kept is a share of it"
    assert "  clean frames: point read at " in said
    assert {view.factor for view in report.views} == set(FACTORS)
    assert {each.factor for each in report.readings.decodings} == {"rot90", "hflip", "camera_shift"}  # must be followed
    metrics = {(cell.factor, cell.metric) for cell in report.readings.cells}
    assert {("rot90", "eq_map"), ("hflip", "pck"), ("brightness", "nis_w"), ("brightness", "r1")} <= metrics
    assert report.references.keys() == {"pixels", "random_init"}
    moved = [r for r in report.readings.retentions if (r.factor, r.label) == ("camera_shift", "point")]
    assert all(r.figure.value is not None for r in moved)  # where the moved camera sees the block is known
    for name in ("report.html", "heatmap.png", "plane.png", "views.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    codes = {"SAFE": 0, "SAFE IF TRAINED WITH IT": 0, "RISKY": 10, "UNUSABLE": 11, "INCONCLUSIVE": 12}
    assert report.word is not None
    assert main(["probe", "check", str(tmp_path / "report.json")]) == codes[report.word]


def test_a_constant_encoder_is_unusable(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_tiny(tmp_path / "models", version=1, broken="constant")
    report = probe(model, tmp_path / "out", cache)
    assert report.word == "UNUSABLE"
    assert {cell.figure.value for cell in report.readings.cells} == {None}
    assert "have collapsed" in capsys.readouterr().out
    assert main(["probe", "check", str(tmp_path / "out" / "report.json"), "--fail-on", "risky"]) == 11


def test_nan_features_and_frames_alike_are_one_line(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = build_tiny(tmp_path / "models", version=1, broken="nan")
    line = ["probe", "run", str(model), "--data", "env:robossl/Push-v0", "--scenes", "20", "--image-size", "32"]
    line += ["--quick", "--factors", "hflip", "--out", str(tmp_path / "out"), "--cache", str(cache)]
    assert main(line) == 2
    assert "nan or infinity" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--profile", "juggling"], "unknown profile 'juggling'"),
        (["--factors", "hughe"], "unknown factor 'hughe'; did you mean 'hue'"),
        (["--frames", "1"], "frames must be 2 or more, got 1"),
        (["--cache-gb", "nan"], "cache_gb must be a positive number, got nan"),
        (["--profile", ""], "unknown profile ''"),
        (["--seed", "-1"], "seed must lie in 0 to 4294967295, got -1"),
        (["--out", "/proc/absent"], "cannot write to /proc/absent (No such file or directory); choose another --out"),
    ],
)
def test_wrong_arguments_are_one_line(
    wrong: list[str], said: str, encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["probe", "run", str(encoders / "run"), "--data", "env:robossl/Push-v0", "--out", str(tmp_path / "out")]
    assert main([*line, *wrong]) == 2
    assert said in capsys.readouterr().err


def test_a_cache_that_would_be_too_large_is_refused_before_anything_is_written(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["probe", "run", str(encoders / "run"), "--data", "env:robossl/Push-v0", "--scenes", "30", "--quick"]
    line += ["--factors", "hflip", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert main([*line, "--cache-gb", "0.0001"]) == 2
    said = capsys.readouterr().err
    assert "views and features take 0.0" in said and "or raise --cache-gb" in said
    assert not (tmp_path / "cache").exists()


def test_a_factor_that_changes_no_pixel_is_no_invariance(
    encoders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (60, 32, 32, 1), np.uint8).repeat(3, axis=3)
    (tmp_path / "grey").mkdir()
    for number, pixels in enumerate(grey):
        Image.fromarray(pixels).save(tmp_path / "grey" / f"{number}.png")
    assert main(["ingest", str(tmp_path / "grey"), "--out", str(tmp_path / "store"), "--short-side", "32"]) == 0
    line = ["probe", "run", str(encoders / "run"), "--data", str(tmp_path / "store"), "--quick", "--frames", "20"]
    line += ["--profile", "grasp-classification", "--factors", "hue", "blur", "--cache", str(tmp_path / "cache")]
    assert main([*line, "--out", str(tmp_path / "out")]) == 0
    report = read_report(tmp_path / "out" / "report.json")
    assert {cell.factor for cell in report.readings.cells} == {"blur"}
    verdict = next(each for each in report.verdicts if each.factor == "hue")
    assert verdict.metric == "not measured" and "it changes no pixel of these frames" in verdict.sentence
    assert "not shown: hue: it changes no pixel" in capsys.readouterr().out


def test_profiles_are_listed_and_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "profiles"]) == 0
    assert "pose-estimation" in capsys.readouterr().out
    assert main(["probe", "profiles", "pose-estimation"]) == 0
    assert "rotation             EQUI, judged up to strength 3" in capsys.readouterr().out
    assert main(["probe"]) == 2
