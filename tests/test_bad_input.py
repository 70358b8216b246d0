"""What a person gets wrong: one line that says what was got and what to do, a non-zero exit, nothing left behind."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from places import CLIPS

from robossl.cli.main import main
from robossl.common.config import from_mapping
from robossl.data.clips import check_clips, moving_rows
from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.training.run_config import RunConfig
from robossl.views import ClipSpec

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


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("seed", 10**22, "seed must lie in 0 to 4294967295, got 10000000000000000000000"),
        ("seed", -1, "seed must lie in 0 to 4294967295, got -1"),
        ("method.output_dim", 0, "method.output_dim must be 1 or more, got 0"),
        ("method.view.size", 0, "method.view: size must be 1 or more, got 0"),
        ("method.view.size", -3, "method.view: size must be 1 or more, got -3"),
        ("method.view.ratio", [0.0, 0.0], "ratio must be two positive numbers, the lesser first, got 0.0 0.0"),
        (
            "method.view.scale",
            [0.9, 0.1],
            "scale must be two numbers above 0 and up to 1, the lesser first, got 0.9 0.1",
        ),
        (
            "method.view.scale",
            [-1.0, 2.0],
            "scale must be two numbers above 0 and up to 1, the lesser first, got -1.0 2",
        ),
        ("method.view.blur_sigma", [0.1, float("nan")], "blur_sigma must be two positive numbers, the lesser first"),
        ("method.view.hflip_p", 7.0, "method.view: hflip_p must lie in 0 to 1, got 7.0"),
        ("method.view.solarize_p", -0.1, "method.view: solarize_p must lie in 0 to 1, got -0.1"),
        ("method.view.hue", 0.7, "method.view: hue must lie in 0 to 0.5, got 0.7"),
        ("method.view.contrast", -1.0, "method.view: contrast must be 0 or more, got -1.0"),
        ("method.view.clip.num_frames", -1, "method.view.clip: num_frames must be 0 or more, got -1"),
        ("encoder.input_hw", [0, 0], "encoder: input_hw must be 1 or more, got 0"),
        ("encoder.std", [0.2, 0.0, 0.2], "encoder: std must be a positive number, got 0.0"),
        ("encoder.drop_path", 1.5, "encoder: drop_path must lie in 0 to 1, got 1.5"),
        ("optim.lr", -1.0, "optim: lr must be a positive number, got -1.0"),
        ("optim.lr", float("inf"), "optim: lr must be a positive number, got inf"),
        ("optim.momentum", 2.0, "optim: momentum must lie in 0 to 1, got 2.0"),
        ("optim.betas", [0.9, 1.0], "optim: betas must be 0 or more and less than 1, got (0.9, 1.0)"),
        ("optim.weight_decay", -1.0, "optim: weight_decay must be 0 or more, got -1.0"),
        ("optim.warmup_steps", -5, "optim: warmup_steps must be 0 or more, got -5"),
        ("optim.clip_grad_norm", -1.0, "optim: clip_grad_norm must be a positive number, got -1.0"),
        ("data.num_workers", -1, "data: num_workers must be 0 or more, got -1"),
        ("data.frames_per_s", -5.0, "data: frames_per_s must be a positive number, got -5.0"),
        ("data.weight", float("nan"), "data: weight must be a positive number, got nan"),
        ("data.mix", [{"store": "b", "weight": 0.0}], "data.mix[0]: weight must be a positive number, got 0.0"),
        ("data.mix", [{"store": "b", "weight": -1.0}], "data.mix[0]: weight must be a positive number, got -1.0"),
    ],
)
def test_numbers_outside_of_their_range(key: str, value: object, wanted: str) -> None:
    settings = yaml.safe_load(YAML)
    *parts, last = key.split(".")
    at = settings
    for part in parts:
        at = at.setdefault(part, {})
    at[last] = value
    with pytest.raises(InputError, match=re.escape(wanted)):
        from_mapping(settings, RunConfig)


def test_overrides_outside_of_their_range_exit_2(
    config: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["pretrain", str(config), "--out", str(tmp_path / "run"), "--method.view.size", "0"])
    assert caught.value.code == 2
    assert "size must be 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--method.view.clip.num-frames", 3, "the method takes single frames, got clips of 3; leave out num_frames"),
        (
            "--train.batch-size",
            1,
            "train.batch_size 1 in 1 accumulation steps leaves one frame at a time",
        ),
        pytest.param(
            "--train.device",
            "cuda",
            "train.device is cuda, but torch finds no GPU here; choose cpu or auto",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU"),
        ),
    ],
)
def test_overrides_that_do_not_fit(
    option: str, value: object, wanted: str, config: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    assert wanted in fails("pretrain", config, "--out", tmp_path / "run", option, value)
    assert not (tmp_path / "run" / "checkpoints").exists()


CPC = "name: cpc, view: {size: 32}, num_frames: 4, steps: 2, stride_seconds: 0.2"
SIMSIAM = YAML.splitlines()[1].removeprefix("method: {").removesuffix("}")


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        (CPC.replace("0.2", "60"), "needs 180.00 s of continuous video, but the longest episode of the split lasts "),
        (CPC + ", columns: {action: 7}", "column 'action' is needed from droid; "),
        (CPC + ", columns: [action]", "run.yaml:2: method.columns must be a mapping, got a list of 1"),
        (CPC.replace("steps: 2", "steps: 4"), "steps must be 1 to num_frames - warmup_frames - 1 = 3, got 4"),
        (
            CPC.replace("32}", "32, clip: {num_frames: 3}}"),
            "method.view.clip is set, but this method chooses its clips",
        ),
        ("name: tcn, window_seconds: 40.0", "needs 80.00 s of continuous video, but the longest episode of the split "),
        ("name: vip, discount: 1.5", "discount must be in [0, 1), got 1.5"),
        ("name: cpc_rows", "resnet10t has batch-norm, through which patches share information"),
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
    assert "(optim.lr: 0.05 -> 0.2)" in line  # more steps alone would lengthen the run


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


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ({"name": "atc", "momentum": 1.5}, "momentum must lie in 0 to 1, got 1.5"),
        ({"name": "cpc", "momentum": -2.0}, "momentum must lie in 0 to 1, got -2.0"),
        ({"name": "cpc", "context_layers": 0}, "context_layers must be 1 or more, got 0"),
        ({"name": "cpc", "columns": {"action": 0}}, "columns.action must be 1 or more, got 0"),
        ({"name": "cpc", "discrete_columns": {"a": 0}}, "discrete_columns.a must be 1 or more, got 0"),
        ({"name": "cpc_rows", "patch_stride": 0}, "patch_stride must be 1 or more, got 0"),
        ({"name": "cpc_rows", "patch_size": 512}, "patch_size must lie in 1 to 256, got 512"),
        ({"name": "cpc_rows", "skip_rows": -1}, "skip_rows must be 0 or more, got -1"),
        ({"name": "cpc_rows", "temperature": 0.0}, "temperature must be a positive number, got 0.0"),
        ({"name": "dino", "center_momentum": 7.0}, "center_momentum must lie in 0 to 1, got 7.0"),
        ({"name": "looc", "kept": [["solarize"]]}, "kept has a space for solarize, which the view never draws"),
        ({"name": "looc", "kept": [["turn"]], "view": {"turn_p": 0.0}}, "kept has a space for turn, which the view"),
        ({"name": "moco_v3", "projector_layers": 0}, "projector_layers must be 1 or more, got 0"),
        ({"name": "pixpro", "instance_weight": -1.0}, "instance_weight must be 0 or more, got -1.0"),
        ({"name": "r3m", "l1_weight": -1.0}, "l1_weight must be 0 or more, got -1.0"),
        ({"name": "simsiam", "bank_momentum": 3.0}, "bank_momentum must lie in 0 to 1, got 3.0"),
        ({"name": "swav", "epsilon": 0.005}, "epsilon must be 0.0125 or more, got 0.005"),
        ({"name": "tcn", "length": -1.0}, "length must be 0 or more, got -1.0"),
        ({"name": "vicreg", "epsilon": -1.0}, "epsilon must be a positive number, got -1.0"),
        ({"name": "vip", "l2_weight": -1.0}, "l2_weight must be 0 or more, got -1.0"),
    ],
)
def test_numbers_of_methods_outside_of_their_range(method: dict[str, object], wanted: str) -> None:
    with pytest.raises(InputError, match=re.escape(wanted)):
        from_mapping(yaml.safe_load(YAML) | {"method": method}, RunConfig)


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (
            {"method": {"name": "simclr", "view": {"size": 40}}, "encoder": {"backbone": "vit_tiny_patch16_224"}},
            "vit_tiny_patch16_224 takes no views of 40 px: Input height (40) should be divisible by patch size (16)",
        ),
        (
            {"train": {"batch_size": 4, "accumulate": 4}},
            "train.batch_size 4 in 4 accumulation steps leaves one frame at a time",
        ),
        (
            {"method": {"name": "atc", "ahead_seconds": 0.01, "view": {"size": 32}}},
            "the method takes frames 0.01 s apart, but those of the split are 0.033 s apart",
        ),
        ({"knn": {"label": "scene", "output": "cls"}}, "knn.output is cls, but resnet10t has no class token"),
        (
            {"method": {"name": "moco", "view": {"size": 32}}, "encoder": {"backbone": "efficientnet_lite0"}},
            "cannot give BatchNormAct2d statistics of 8 groups",
        ),
        (
            {
                "method": {"name": "cpc_rows", "patch_size": 8, "patch_stride": 4, "steps": 2, "view": {"size": 32}},
                "encoder": {"backbone": "vit_tiny_patch16_224"},
            },
            "vit_tiny_patch16_224 takes no views of 8 px: Input height (8) should be divisible by patch size (16)",
        ),
        (
            {"encoder": {"backbone": "pit_ti_224", "input_hw": [224, 224]}},
            "pit_ti_224 gives a tensor of shape (1, 1, 256) for frames of 224x224, not a map of 256 channels",
        ),
        (
            {"encoder": {"backbone": "mixer_s32_224", "input_hw": [32, 32]}},
            "mixer_s32_224 takes no frames of encoder.input_hw 32x32 (Input height (32) doesn't match model (224)); "
            "set it to [224, 224], the model's own size",
        ),
        (
            {"encoder": {"backbone": "mixer_s32_224", "input_hw": [224, 224]}},
            "mixer_s32_224 takes no views of 32 px: Input height (32) doesn't match model (224); choose other sizes "
            "for the method's views (the model is made for 224x224)",
        ),
    ],
)
def test_what_does_not_fit_together(
    changed: dict[str, dict[str, object]], wanted: str, config: Path, fails: Callable[..., str], tmp_path: Path
) -> None:
    settings = yaml.safe_load(config.read_text())
    for key, value in changed.items():
        settings[key] = value if key == "method" else settings.get(key, {}) | value
    if settings["method"]["name"] == "moco":
        settings["train"]["batch_size"] = 16
        settings["method"]["queue_size"] = 32
    config.write_text(yaml.safe_dump(settings))
    assert wanted in fails("pretrain", config, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_groups_of_one_frame_are_said(config: Path, fails: Callable[..., str], tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["method"] = {"name": "moco", "view": {"size": 32}, "queue_size": 8, "batch_norm_groups": 4}
    config.write_text(yaml.safe_dump(settings))
    wanted = "train.batch_size 4 leaves a batch-norm one value for its statistics; raise it"
    assert wanted in fails("pretrain", config, "--out", tmp_path / "run")
