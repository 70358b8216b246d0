"""Misuse of a probe is refused before anything is loaded, computed or written.

The encoder of the refusals about data is damaged: had it been opened, its message would have come first. The data of
the refusals about encoders is not there, for the same reason.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from probe_report_kit import frame, make_report
from probe_video_kit import write_steady_onnx

from robossl.cli.main import main
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.probes.document import write_report
from robossl.probes.report.page import write_page

PROFILE = 'schema = "robossl.profile/1"\nname = "own"\ntitle = "T"\nabout = "A."\nversion = 1\ncalibrated = false\n'


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run whose weights cannot be read."""
    run = tmp_path_factory.mktemp("damaged")
    torch.manual_seed(0)
    save_encoder(build_encoder(EncoderConfig("test_resnet", input_hw=(32, 32))), run / "encoder", extra={})
    (weights,) = (run / "encoder").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    return str(run)


def test_an_encoder_in_place_of_the_command_is_said(damaged: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"to probe an encoder: robossl probe run {damaged} --data" in refused([damaged], capsys)
    assert "robossl probe run grpc://robot:8001/mine --data" in refused(["grpc://robot:8001/mine"], capsys)
    assert "unknown command 'probe rum'; " in refused(["rum"], capsys)


def refused(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["probe", *line]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    return said.err


def of_own(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(PROFILE + text)
    return str(path)


SCENE_ONLY = '[factors.table_color]\nneed = "INV"\n[factors.camera_shift]\nneed = "INV"\n'


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--columns", "class", "colour"], "unknown label of classes 'colour'"),
        (["--columns", "pose", "joints"], "joints"),
        (["--columns", "depth", "x"], "depth"),
        (["--split", "vall"], "vall"),
        (["--profile", "grasp-classification", "--factors", "hughe"], "unknown factor 'hughe'; did you mean 'hue'"),
        (["--profile", "light-and-sensor", "--factors", "hflip"], "judges none of hflip; it judges brightness"),
        (["--profile", "colour-keyed-sorting", "--factors", "crop", "scale"], "judges none of crop, scale; it judges"),
        (["--profile", "pose-estimation", "--factors", "camera_zoom"], "can show none of camera_zoom (recorded scenes"),
        (["--factors", "table_color", "light_color"], "can show none of table_color, light_color (recorded scenes"),
        (["--profile", "SCENE_ONLY"], "can show none of table_color, camera_shift"),
        (["--profile", "NOTHING"], "the profile own has no need for any factor"),
        (["--profile", "LABELS"], "labels must be a list of text, got 'class'"),
        (["--profile", "absent.toml"], "cannot read the profile absent.toml"),
        pytest.param(
            ["--device", "cuda"],
            "device is cuda, but torch finds 0 GPUs",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--input.backbone", "resnet18"], "has a card that describes its input; leave the description out"),
        (["--cache", "/proc/absent"], "choose another --cache"),
    ],
)
def test_what_the_data_or_the_task_cannot_give_is_refused_before_the_encoder_is_opened(
    wrong: list[str],
    said: str,
    damaged: str,
    clip_store_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = {
        "SCENE_ONLY": SCENE_ONLY,
        "NOTHING": '[factors.hue]\nneed = "-"\n',
        "LABELS": 'labels = "class"\n[factors]\n',
    }
    wrong = [of_own(tmp_path, texts[each]) if each in texts else each for each in wrong]
    cache = [] if "--cache" in wrong else ["--cache", str(tmp_path / "cache")]
    line = ["run", damaged, "--data", str(clip_store_path), *cache, "--quick", "--out", str(tmp_path / "a" / "out")]
    if "depth" in wrong:  # no type of label: the command line itself refuses it
        with pytest.raises(SystemExit):
            main(["probe", *line, *wrong])
        assert said in capsys.readouterr().err
    else:
        assert said in refused([*line, *wrong], capsys)
    assert not (tmp_path / "a").exists() and not (tmp_path / "cache").exists()


def test_one_picture_is_refused_before_the_encoder_is_opened(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    Image.fromarray(frame(0)).save(tmp_path / "one" / "picture.png")
    assert main(["ingest", str(tmp_path / "one"), "--out", str(tmp_path / "store"), "--short-side", "32"]) == 0
    capsys.readouterr()
    line = ["run", damaged, "--data", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert "a probe needs two or more that are independent" in refused(
        [*line, "--cache", str(tmp_path / "cache")], capsys
    )
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("encoder", "more", "said"),
    [
        ("nowhere", [], "nowhere is no encoder"),
        ("grpc://host:1/a/b", [], "is not grpc://host:port/model"),
        ("timm:resnot18", [], "unknown backbone 'resnot18'; did you mean"),
        ("timm:resnet18@none.safetensors", [], "no file 'none.safetensors'"),
        ("projector:nowhere", [], "no run at nowhere"),
        ("none.onnx", [], "no ONNX model at none.onnx"),
        ("ONNX", [], "its graph does not say their scale"),
        ("ONNX", ["--input.layout", "nhwc"], "is not nhwc of 3 colours"),
        ("ONNX", ["--input.range", "0-1", "--input.output", "z"], "unknown output"),
        ("ONNX", ["--input.range", "0-1", "--input.backbone", "resnet1"], "unknown backbone 'resnet1'; did you mean"),
        ("ONNX", ["--input.range", "0-1", "--token", "secret"], "--token and --ca are for a server"),
    ],
)
def test_what_is_no_encoder_is_refused_before_frames_are_opened(
    encoder: str, more: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = write_steady_onnx(tmp_path / "steady.onnx") if encoder == "ONNX" else encoder
    line = ["run", encoder, "--data", str(tmp_path / "no_store"), "--cache", str(tmp_path / "cache"), *more]
    assert said in refused([*line, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_report_of_another_encoder_or_task_is_not_written_over(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    write_report(make_report(factors=("hue",)), out / "report.json")
    before = (out / "report.json").read_bytes()
    line = ["run", damaged, "--data", str(tmp_path / "no_store"), "--out", str(out), "--cache", str(tmp_path / "cache")]
    said = refused([*line, "--profile", "pose-estimation"], capsys)
    assert "holds the report of runs/simclr for pose-estimation; choose another --out" in said
    assert "holds the report of runs/simclr" in refused(["run", "runs/simclr", *line[2:]], capsys), "no task is another"
    again = refused(["run", "runs/simclr", *line[2:], "--profile", "pose-estimation"], capsys)
    assert "runs/simclr is no encoder" in again, "the same probe may be run again"
    assert (out / "report.json").read_bytes() == before


@pytest.mark.parametrize("name", ["report.json", "report.html"])
def test_a_page_that_no_probe_wrote_is_not_written_over(
    name: str, damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_text(json.dumps({"score": 1}))
    line = ["run", damaged, "--data", str(tmp_path / "no_store"), "--cache", str(tmp_path / "cache")]
    assert "choose another --out" in refused([*line, "--out", str(tmp_path)], capsys)
    assert (tmp_path / name).read_text() == '{"score": 1}'
    (tmp_path / name).unlink()
    (tmp_path / "views.png").touch()  # what a probe that was stopped leaves
    assert "no_store" in refused([*line, "--out", str(tmp_path)], capsys), "the next thing that is wrong"


def test_compare_and_check_refuse_before_they_compute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(factors=("hue", "blur"))
    paths = [str(tmp_path / f"{i}.json") for i in range(5)]
    for path in paths:
        write_report(report, Path(path))
    assert "--out must be a file, got the folder" in refused(["compare", *paths[:2], "--out", str(tmp_path)], capsys)
    page = tmp_path / "new" / "page.html"
    assert "got 5 reports to compare" in refused(["compare", *paths, "--out", str(page)], capsys)
    assert "got 1 reports to compare" in refused(["compare", paths[0], "--out", str(page)], capsys)
    missing = str(tmp_path / "none")
    assert "is not a probe report" in refused(["compare", paths[0], missing, "--out", str(page)], capsys)
    assert not page.parent.exists()
    assert "is not a probe report" in refused(["check", missing], capsys)
    (tmp_path / "empty").mkdir()
    assert "is not a probe report" in refused(["check", str(tmp_path / "empty")], capsys)
    write_page(report, tmp_path / "page")
    assert "is not a probe report" in refused(["check", str(tmp_path / "page")], capsys), "a page is no report"
