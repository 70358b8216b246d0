"""What a person gets wrong: one line that says what was got and what to do, a non-zero exit, nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from robossl.cli import main

CLIPS = Path(__file__).parent / "data" / "droid"
YAML = """
method: {name: simsiam, view: {size: 32}, projector_hidden_dim: 16, output_dim: 16, predictor_hidden_dim: 8}
encoder: {backbone: resnet10t, input_hw: [32, 32]}
data: {store: STORE}
train: {steps: 2, batch_size: 4, sinks: []}
"""


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that must fail with this exit code; gives its one line."""

    def run(*argv: object, code: int = 2) -> str:
        assert main([str(argument) for argument in argv]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("robossl: ")]
        assert len(lines) == 1
        return lines[0]

    return run


@pytest.fixture
def config(tmp_path: Path, clip_store_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(YAML.replace("STORE", str(clip_store_path)))
    return path


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("steps: 2", "stepz: 2", r"run.yaml:5: unknown key in train 'stepz'; did you mean 'steps'?"),
        ("name: simsiam", "name: simsaim", "unknown method 'simsaim'; did you mean 'simsiam'?"),
        ("backbone: resnet10t", "backbone: resnet10q", "unknown backbone 'resnet10q'; nearest: "),
        ("batch_size: 4", "batch_size: 9999", "batch of 9999 is larger than the data: "),
        ("view: {size: 32}", "view: {size: 200}", "views of 200 px from frames whose short side is at most 96"),
        ("steps: 2", "steps: soon", "run.yaml:5: train.steps must be a whole number, got 'soon'"),
    ],
)
def test_configuration(
    old: str, new: str, wanted: str, config: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    config.write_text(config.read_text().replace(old, new))
    assert wanted in fails("pretrain", config, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_resume_with_another_configuration(config: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["pretrain", str(config), "--out", str(run)]) == 0
    line = fails("pretrain", config, "--out", run, "--resume", "--optim.lr", "0.2", "--train.steps", "3")
    assert "(optim.lr: 0.05 -> 0.2; train.steps: 2 -> 3)" in line


def test_store_that_is_none(config: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    config.write_text(config.read_text().replace("store: ", "store: nowhere"))
    assert "nowhere" in fails("pretrain", config, "--out", tmp_path / "run")


def test_empty_folder(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in fails("ingest", tmp_path / "empty", "--out", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_unreadable_video(fails: Callable[..., str], tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    good = next(CLIPS.rglob("*.mp4"))
    shutil.copy(good, videos / "good.mp4")
    (videos / "bad.mp4").write_bytes(good.read_bytes()[:2000])
    assert "bad.mp4" in fails("ingest", videos, "--out", tmp_path / "strict", "--workers", 1, "--strict")
    assert main(["ingest", str(videos), "--out", str(tmp_path / "store"), "--workers", "1"]) == 0


def test_labels_that_match_nothing(fails: Callable[..., str], tmp_path: Path) -> None:
    videos, csv = tmp_path / "videos", tmp_path / "labels.csv"
    videos.mkdir()
    shutil.copy(next(CLIPS.rglob("*.mp4")), videos / "a.mp4")
    csv.write_text("path,split,scene\nelsewhere/b.mp4,train,Office\n")
    line = fails("ingest", videos, "--out", tmp_path / "store", "--workers", 1, "--labels", csv)
    assert "labels.csv" in line


def test_unknown_command_and_option(fails: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'pretrain'" in fails("pretrian")
