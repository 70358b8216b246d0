"""A first session: every small recipe on a folder of plain videos, and what is said on the way."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from methods_kit import reference
from places import ROOT
from robossl_envs.collect import collect
from terminal import on_a_terminal

from robossl.cli.main import main
from robossl.common.config import as_plain, load, override
from robossl.data.ingest import ingest
from robossl.data.ingest_report import RECIPE, RECIPE_BATCH, RECIPE_FRAMES_PER_S, RECIPE_VIEW, next_step
from robossl.data.store import Store, open_store
from robossl.errors import InputError
from robossl.evaluation.run import EvaluationSettings, run_evaluation
from robossl.training.adapt import adapt, shorten_warmup
from robossl.training.next_steps import next_steps
from robossl.training.run_config import MixConfig, OnlineKnnConfig, RunConfig, load_config

CLIPS = ROOT / "tests" / "data" / "droid"
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
SMALL = [path for path in RECIPES if any(name in path.stem for name in ("_resnet18_", "_vit_tiny_", "_convnext_atto_"))]
QUICK = ("_vit_tiny_", "_convnext_atto_", "resnet18_g1", "resnet18_video", "moco_turned")
WHY_NOT = {
    "cpc_resnet18_g1": "column 'action' is needed from videos",  # it learns from the robot's actions
    "distill_resnet18_imagenette": "set the view sizes of the method, or its teacher_size, to 96 or less",
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of sixteen mp4s in a folder, and nothing else."""
    folder = tmp_path_factory.mktemp("plain")
    videos = folder / "videos"
    videos.mkdir()
    for clip in CLIPS.rglob("*.mp4"):
        shutil.copy(clip, videos)
    ingest((videos,), out=folder / "store", short_side=96, workers=1)
    return folder / "store"


@pytest.fixture(scope="module")
def labelled(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """Make a store of the same videos with a table of labels, from rows of (file, split, labels)."""

    def make(*columns: str, row: Callable[[int], tuple[str, ...]]) -> Store:
        folder = tmp_path_factory.mktemp("labelled")
        table = folder / "labels.csv"
        videos = plain.parent / "videos"
        with table.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["path", *columns])
            lines.writerows([clip.name, *row(i)] for i, clip in enumerate(sorted(videos.iterdir())))
        shutil.copytree(plain, folder / "store")
        ingest((videos,), out=folder / "store", short_side=96, workers=1, labels=table)
        return open_store(folder / "store")

    return make


def pretrain_said(capsys: pytest.CaptureFixture[str], *argv: object, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["pretrain", *map(str, argv)]) == code
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(path, marks=() if any(name in path.stem for name in QUICK) else pytest.mark.slow, id=path.stem)
        for path in SMALL
    ],
)
def test_every_small_recipe_runs_on_plain_videos_or_says_why_not(
    recipe: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--data.store", plain, "--train.steps", 2, "--train.batch-size", 16, "--out", tmp_path / "run"]
    if recipe.stem.startswith("distill_"):  # the recipe's teacher is in a package of its own
        short += ["--method.teacher", reference("distill").TEACHER]
    if recipe.stem in WHY_NOT:
        said = pretrain_said(capsys, recipe, *short, code=2)
        assert WHY_NOT[recipe.stem] in said and said.count("\n") == 1
        assert not (tmp_path / "run").exists()
        return
    said = pretrain_said(capsys, recipe, *short)
    config = load(recipe, RunConfig)
    assert ("online kNN is off" in said) == (config.knn is not None)
    assert ("has no splits" in said) == (config.data.split is not None)
    assert ("the warm-up of" in said) == (config.optim.warmup_steps > 1)
    assert (tmp_path / "run" / "encoder" / "encoder.json").exists()


@pytest.mark.parametrize("recipe", [pytest.param(path, id=path.stem) for path in RECIPES])
def test_every_recipe_adapts_to_a_store_without_labels(recipe: Path, plain: Path) -> None:
    config = override(load(recipe, RunConfig), ["--data.store", str(plain)], prog="robossl pretrain")
    adapted, lines = adapt(config, [open_store(plain)])
    assert adapted.knn is None and adapted.data.split is None
    assert len(lines) == (config.knn is not None) + (config.data.split is not None)
    assert adapt(adapted, [open_store(plain)]) == (adapted, ())
    assert replace(adapted, knn=config.knn, data=config.data) == config


def test_what_a_store_lacks_for_online_knn_is_one_line(plain: Path, labelled: Callable[..., Store]) -> None:
    recipe = load(ROOT / "configs" / "simsiam_resnet18_droid.yaml", RunConfig)
    no_split = labelled("scene", row=lambda i: ("ab"[i % 2],))
    no_test = labelled("split", "scene", row=lambda i: ("train", "ab"[i % 2]))
    apart = labelled("split", "scene", row=lambda i: (("train", "a"), ("val", "b"))[i % 2])
    unlabelled_val = labelled("split", "scene", row=lambda i: (("train", "a"), ("val", ""))[i % 2])
    other = labelled("split", "task", row=lambda i: (("train", "a"), ("val", "a"))[i % 2])
    for store, words in (
        (open_store(plain), "has no labels; ingest with --labels"),
        (no_split, "has no split 'train'; it has none"),
        (no_test, "has no split 'val'; choose from train with --knn.test-split"),
        (apart, "'scene' has no class in both 'train' (1 classes) and 'val' (1)"),
        (unlabelled_val, "'scene' has no class in both 'train' (1 classes) and 'val' (0)"),
        (other, "unknown label 'scene'; choose from task with --knn.label"),
    ):
        adapted, lines = adapt(recipe, [store])
        assert adapted.knn is None
        (line,) = [line for line in lines if line.startswith("online kNN is off: ")]
        assert words in line
        assert (adapted.data.split is None) == (not any(store.manifest.splits))
    fits = replace(recipe, knn=OnlineKnnConfig("task"))
    assert adapt(fits, [other]) == (fits, ())


def test_what_plain_video_lacks_for_an_evaluation_is_its_labels(plain: Path) -> None:
    for split_by in (None, "episode"):  # the first hint must not lead to the second error
        with pytest.raises(InputError, match=r"has no labels, got 'scene'; ingest .*; or measure it without labels: "):
            run_evaluation((), open_store(plain), EvaluationSettings(("scene",), split_by=split_by), command="")


def test_stores_mixed_in_are_adapted_each_on_its_own(plain: Path, clip_store: Store) -> None:
    recipe = load(ROOT / "configs" / "simsiam_resnet18_droid.yaml", RunConfig)
    data = replace(recipe.data, store=clip_store.path, mix=(MixConfig(plain),))
    adapted, lines = adapt(replace(recipe, data=data), [clip_store, open_store(plain)])
    assert [part.split for part in adapted.data.parts] == ["train", None]
    assert adapted.knn == recipe.knn
    assert lines == (f"{plain} has no splits: all of it is trained on, not only split 'train'",)


@pytest.mark.parametrize(
    ("steps", "warmup", "fitting"), [(10, 20, 1), (2, 2, 1), (1, 20, 0), (100, 400, 10), (21, 20, 20)]
)
def test_a_warmup_longer_than_the_run_is_shortened(steps: int, warmup: int, fitting: int) -> None:
    recipe = load(ROOT / "configs" / "simsiam_resnet18_video.yaml", RunConfig)
    config = replace(recipe, train=replace(recipe.train, steps=steps), optim=replace(recipe.optim, warmup_steps=warmup))
    short, lines = shorten_warmup(config)
    assert short.optim.warmup_steps == fitting
    assert len(lines) == (fitting != warmup)


@pytest.mark.parametrize("kind", ["plain", "no split", "few", "states"])
def test_each_printed_command_works_as_it_is(
    kind: str,
    plain: Path,
    labelled: Callable[..., Store],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kind == "states":
        frames = tmp_path / "frames"
        collect(env="dots/Dot-v0", module=("dots",), image_size=32, workers=1, agent="random", episodes=8, out=frames)
        ingest((frames,), out=tmp_path / "store", short_side=32, workers=1)
    wanted, store = {
        "plain": lambda: ([], open_store(plain)),
        "no split": lambda: (["evaluate"], labelled("task", row=lambda i: ("ab"[i % 2],))),
        "few": lambda: (
            ["evaluate"],
            labelled("split", "task", row=lambda i: (("train", "val")[i // 2 % 2], "ab"[i % 2])),
        ),
        "states": lambda: (["regress"], open_store(tmp_path / "store")),
    }[kind]()
    recipe = ROOT / "configs" / "simsiam_resnet18_video.yaml"
    short = ["--train.steps", 1, "--train.batch-size", 8, "--encoder.backbone", "test_resnet", "--method.view.size", 32]
    monkeypatch.chdir(tmp_path)
    said = pretrain_said(capsys, recipe, "--data.store", store.path, "--out", "a run", *short)
    commands = [shlex.split(line) for line in said.splitlines() if line.startswith("  robossl ")]
    assert [words[1] for words in commands] == [*wanted, "report", "export"]
    for words in commands:
        assert main(words[1:]) == 0, words


def test_ingest_suggests_the_recipe_only_for_a_store_that_it_can_train_on(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_config(RECIPE)
    view, batch, data = as_plain(recipe)["method"]["view"], recipe.train.batch_size, recipe.data
    assert (view["size"], batch, data.frames_per_s) == (RECIPE_VIEW, RECIPE_BATCH, RECIPE_FRAMES_PER_S)
    assert data.split is None and recipe.knn is None
    monkeypatch.chdir(ROOT)
    info, train = f"next: robossl info {plain}", f"robossl pretrain {RECIPE} --data.store {plain} --out runs/store"
    assert next_step(plain) == f"{info}; {train}"
    few = tmp_path / "few"
    ingest((next(CLIPS.rglob("*.mp4")),), out=few, short_side=48, workers=1)
    assert next_step(few) == f"next: robossl info {few}"


def test_a_probe_that_can_pass_is_suggested_for_plain_video(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(plain)
    assert not any("probe run" in line for line in next_steps(Path("runs/mine"), store))
    monkeypatch.setattr(f"{next_steps.__module__}.PROBED_EPISODES", store.num_episodes)
    assert f"robossl probe run runs/mine --data {plain} --profile light-and-sensor --out probes/mine --quick" in (
        next_steps(Path("runs/mine"), store)
    )


def test_the_label_that_was_watched_is_suggested(clip_store: Store) -> None:
    first, *_ = next_steps(Path("run"), clip_store, label="verb")
    assert first.startswith("robossl evaluate run ") and "--label verb" in first


def test_knn_and_the_time_left_are_seen_on_a_terminal(clip_store_path: Path, tmp_path: Path) -> None:
    recipe = ROOT / "configs" / "simsiam_resnet18_droid.yaml"
    argv = ["pretrain", str(recipe), "--data.store", str(clip_store_path), "--out", str(tmp_path / "run")]
    argv += ["--train.steps", "4", "--train.batch-size", "4", "--train.log-every", "1", "--encoder.backbone"]
    code, seen = on_a_terminal([*argv, "test_resnet", "--method.view.size", "32", "--knn.every", "3"])
    assert code == 0, seen
    assert "step 3: kNN reads scene at " in seen
    assert "step 4: kNN reads scene at " in seen  # the end, whatever `every` is
    assert " left  loss " in seen
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("kNN reads scene at ") == 2


@pytest.mark.slow
def test_two_ranks_say_each_line_once(plain: Path, tmp_path: Path) -> None:
    recipe = ROOT / "configs" / "byol_resnet18_droid.yaml"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "robossl"]
    argv = ["pretrain", str(recipe), "--data.store", str(plain), "--out", str(tmp_path / "run"), "--train.steps", "2"]
    argv += ["--train.batch-size", "4", "--encoder.backbone", "test_resnet"]
    done = subprocess.run(
        [*torchrun, *argv], capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    for line in ("has no splits", "the warm-up of 20 steps", "online kNN is off", "done; next:", "  robossl export "):
        assert done.stderr.count(line) == 1, done.stderr
