"""What a person gets wrong: one line that says what was got and what to do, a non-zero exit, nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robossl.cli import main
from robossl.data.clips import check_clips, moving_rows
from robossl.data.store import open_store
from robossl.views import ClipSpec

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


CPC = "name: cpc, view: {size: 32}, num_frames: 4, steps: 2, stride_seconds: 0.2"
SIMSIAM = YAML.splitlines()[1].removeprefix("method: {").removesuffix("}")


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (CPC.replace("0.2", "60"), "needs 180.00 s of video in one piece, the longest episode of the split lasts "),
        (CPC + ", columns: {action: 7}", "column 'action' is needed from droid; "),
        (CPC + ", columns: [action]", "run.yaml:2: method.columns must be a mapping, got a list of 1"),
        (CPC.replace("steps: 2", "steps: 4"), "steps must be 1 to num_frames - warmup_frames - 1 = 3, got 4"),
        (
            CPC.replace("32}", "32, clip: {num_frames: 3}}"),
            "method.view.clip is set, but this method chooses its clips",
        ),
        ("name: tcn, window_seconds: 40.0", "needs 80.00 s of video in one piece, the longest episode of the split "),
        ("name: vip, discount: 1.5", "discount must be in [0, 1), got 1.5"),
        ("name: cpc_rows", "resnet10t has batch-norm, through which a patch learns of its neighbours"),
        ("name: cpc_rows, view: {size: 128}", "3 rows of patches (64 pixels, 32 apart): steps must be 1 to 1, got 5"),
    ],
)
def test_clips_that_cannot_be_had(
    method: str, wanted: str, config: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    config.write_text(config.read_text().replace(SIMSIAM, method))
    assert wanted in fails("pretrain", config, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_video_method_on_images(config: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    assert main(["ingest", str(tmp_path / "images"), "--out", str(tmp_path / "photos"), "--workers", "1"]) == 0
    text = config.read_text().replace(SIMSIAM, CPC)
    config.write_text(
        "\n".join(
            line if "store:" not in line else f"data: {{store: {tmp_path}/photos, split: null}}"
            for line in text.splitlines()
        )
    )
    line = fails("pretrain", config, "--out", tmp_path / "run")
    assert "the method learns from video, but all 8 episodes of the split are single frames; ingest video" in line


def test_images_in_a_mixed_store_are_no_clips(config: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    both = tmp_path / "both"
    assert main(["ingest", str(tmp_path / "images"), str(CLIPS / "videos"), "--out", str(both), "--workers", "1"]) == 0
    store = open_store(both)
    rows = store.rows(None)
    moving = moving_rows(store, rows)
    assert len(rows) - len(moving) == 8
    check_clips(store, rows, [ClipSpec(2, 0.1)])
    assert not np.isin(store.episode_of(moving), np.flatnonzero(np.diff(store.episode_start) == 1)).any()


def write_images(folder: Path) -> None:
    folder.mkdir()
    for i in range(8):
        Image.new("RGB", (48, 32), (30 * i, 0, 0)).save(folder / f"{i}.png")


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
