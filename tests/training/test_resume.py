"""Going on with a run: how it is named, what may change meanwhile, what more steps do to it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from places import CLIPS
from runs_kit import assert_same_run, config_for

from robossl.cli.main import main
from robossl.common.config import load, to_yaml
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.training.optim import OptimConfig, lr_factor
from robossl.training.pretrain import pretrain
from robossl.training.run_config import OnlineKnnConfig, RunConfig
from robossl.training.run_paths import resolve


@pytest.fixture(scope="module")
def finished(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, in `runs/mine`. Copy it to change it."""
    config = config_for("simsiam", clip_store_path, steps=2, checkpoint_every=1)
    return pretrain(config, out=tmp_path_factory.mktemp("resume") / "runs" / "mine").path


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, Path("runs") / "mine"))


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    capsys.readouterr()
    assert main(["pretrain", *map(str, argv)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("robossl: ") and said.count("\n") == 1
    return said


def test_a_run_is_not_trained_again_by_accident(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for named in (run, run / "config.yaml", run.absolute(), f"{run}/"):
        said = refused(capsys, named)
        assert f"pretrain {str(named).removesuffix('/config.yaml').rstrip('/')} --resume" in said
        assert "config.yaml --out ANOTHER" in said
    (run / "checkpoints").rename("kept")
    (run / "encoder").rename("kept_encoder")
    assert "--resume" in refused(capsys, run / "config.yaml")  # killed before it saved anything
    assert [path.name for path in Path("runs").iterdir()] == ["mine"]


def test_a_run_is_resumed_by_its_folder_and_said_to_be_done(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    for named in (run, run / "config.yaml"):
        assert main(["pretrain", str(named), "--resume"]) == 0
    assert (run / "checkpoints" / "step_00000002").exists()
    assert "all 2 steps are done; add --train.steps MORE to lengthen the run" in capsys.readouterr().err


def test_a_killed_run_without_a_checkpoint_begins_again(run: Path, finished: Path) -> None:
    shutil.rmtree(run / "checkpoints")
    shutil.rmtree(run / "encoder")
    assert main(["pretrain", str(run), "--resume"]) == 0
    assert_same_run(finished, run, step=2)


def test_the_same_configuration_is_trained_anew_elsewhere(run: Path, finished: Path) -> None:
    assert main(["pretrain", str(run / "config.yaml"), "--out", "other"]) == 0
    assert_same_run(finished, Path("other"), step=2)
    Path("copied").mkdir()
    shutil.copy(run / "config.yaml", "copied/mine.yaml")
    shutil.copy(run / "config.yaml", "copied/config.yaml")
    assert resolve(Path("copied/mine.yaml"), out=None, resume=False)[1] == Path("runs/mine")
    assert resolve(Path("copied/config.yaml"), out=None, resume=False)[1] == Path("runs/copied")


def test_what_is_no_run_is_not_resumed(run: Path, clip_store_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_the_run = f"is a part of the run {run.absolute()}; name the run: robossl pretrain {run.absolute()} --resume"
    assert name_the_run in refused(capsys, run / "encoder", "--resume")
    assert name_the_run in refused(capsys, run / "checkpoints" / "step_00000002", "--resume")
    assert "is no run: it has no config.yaml; name a yaml" in refused(capsys, clip_store_path, "--resume")
    assert "is no run" in refused(capsys, clip_store_path)
    assert "unknown recipe 'absent'; choose from" in refused(capsys, "absent", "--resume")
    (run / "config.yaml").rename("config.yaml")
    assert "has checkpoints but no config.yaml; put it back" in refused(capsys, run, "--resume")
    assert "no run has begun there; leave out --resume" in refused(capsys, "config.yaml", "--resume")
    assert "holds no run that has begun; name its config.yaml" in refused(capsys, ".", "--resume")


def test_a_finished_run_is_lengthened_and_resume_stays_exact(
    finished: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pretrain", str(run), "--resume", "--train.steps", "6"]) == 0
    assert (
        "lengthened from 2 to 6 steps: from step 2 on every schedule is that of a run of 6" in capsys.readouterr().err
    )
    assert load(run / "config.yaml", RunConfig).train.steps == 6
    halved = Path(shutil.copytree(run, tmp_path / "halved"))
    for step in (5, 6):
        shutil.rmtree(halved / "checkpoints" / f"step_{step:08d}")
    assert main(["pretrain", str(halved), "--resume"]) == 0
    assert "lengthened" not in capsys.readouterr().err
    assert_same_run(run, halved, step=6)
    rates = [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    peak = 0.05 * 8 / 256
    assert rates == [
        pytest.approx(peak * lr_factor(OptimConfig(), step=step, steps=2 if step < 2 else 6)) for step in range(6)
    ]
    assert "a run can be lengthened, not shortened" in refused(capsys, run, "--resume", "--train.steps", "4")
    assert "(optim.lr: 0.05 -> 0.1)" in refused(capsys, run, "--resume", "--train.steps", "8", "--optim.lr", "0.1")


def test_a_run_that_was_stopped_is_lengthened_too(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    assert main(["pretrain", str(run), "--resume", "--train.steps", "3"]) == 0
    assert "lengthened from 2 to 3 steps: from step 1 on" in capsys.readouterr().err


def test_online_knn_may_change_on_resume(run: Path, finished: Path, clip_store_path: Path) -> None:
    shutil.rmtree(run / "checkpoints" / "step_00000002")
    config = replace(load(run / "config.yaml", RunConfig), knn=OnlineKnnConfig("scene", every=1))
    pretrain(config, out=run, resume=True)
    assert "knn/scene" in (run / "metrics.jsonl").read_text().splitlines()[-1]
    assert main(["pretrain", str(run), "--resume", "--knn", "none"]) == 0
    assert load(run / "config.yaml", RunConfig).knn is None


def test_new_labels_do_not_stop_a_run_and_new_frames_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos, store, table = tmp_path / "videos", tmp_path / "store", tmp_path / "labels.csv"
    clips = sorted(CLIPS.rglob("*.mp4"))
    videos.mkdir()
    for clip in clips[:2]:
        shutil.copy(clip, videos)

    def label(*rows: str) -> None:
        table.write_text("\n".join(["path,split,scene", *rows]))
        ingest((videos,), out=store, short_side=96, workers=1, labels=table)

    def resume(out: Path, code: int = 0) -> str:
        shutil.rmtree(out / "checkpoints" / "step_00000002", ignore_errors=True)
        capsys.readouterr()
        assert main(["pretrain", str(out), "--resume"]) == code
        return capsys.readouterr().err

    ingest((videos,), out=store, short_side=96, workers=1)
    config = config_for("simsiam", store, steps=2, checkpoint_every=1)
    everything = pretrain(config, out=tmp_path / "everything").path
    before = open_store(store).content_hash
    label(f"{clips[0].name},train,kitchen", f"{clips[1].name},val,lab")
    assert open_store(store).content_hash != before
    resume(everything)  # all of it is trained on, as before
    one_split = pretrain(config, out=tmp_path / "one_split").path
    assert load(one_split / "config.yaml", RunConfig).data.split == "train"
    label(f"{clips[0].name},train,office", f"{clips[1].name},test,lab")
    resume(one_split)
    label(f"{clips[0].name},val,office", f"{clips[1].name},train,lab")
    assert "with other frames to train on; put the old one back" in resume(one_split, code=2)
    resume(everything)
    shutil.copy(clips[2], videos)
    ingest((videos,), out=store, short_side=96, workers=1)
    assert "with other frames to train on" in resume(everything, code=2)
    head = everything / "checkpoints" / "step_00000001" / "state.json"
    written = json.loads(head.read_text())
    del written["state"]["frames"]  # as an earlier version wrote it
    head.write_text(json.dumps(written))
    assert "with other frames to train on" in resume(everything, code=2)


@pytest.mark.parametrize("sink", ["wandb", "trackio"])
def test_a_missing_sink_is_noticed_before_the_folder_is_made(
    sink: str, clip_store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        __import__(sink)
    except ImportError:
        pass
    else:
        pytest.skip(f"{sink} is installed")
    config = tmp_path / "run.yaml"
    config.write_text(to_yaml(config_for("simsiam", clip_store_path, steps=1)))
    said = refused(capsys, config, "--out", tmp_path / "run", "--train.sinks", "tensorboard", sink)
    assert f"train.sinks names {sink}, which cannot be imported" in said and f"pip install {sink}" in said
    assert not (tmp_path / "run").exists()


def test_a_run_in_another_folder_is_not_resumed_from_a_recipe(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "config.yaml", "other.yaml")
    assert "nothing to resume in runs/other: no config.yaml" in refused(capsys, "other.yaml", "--resume")
    with pytest.raises(InputError, match="already holds a run"):
        pretrain(load(Path("other.yaml"), RunConfig), out=run)


def test_a_run_of_an_earlier_version_keeps_what_it_was_trained_with(clip_store_path: Path, tmp_path: Path) -> None:
    """Semi-hard mining came to TCN as a default; a run that knew of none goes on without."""
    recipe = tmp_path / "tcn.yaml"
    recipe.write_text(f"method: {{name: tcn, margin: 2.0, length: 10.0}}\ndata: {{store: {clip_store_path}}}\n")
    assert load(recipe, RunConfig).method.mining == "semi_hard"
    assert load(recipe, RunConfig, is_saved=True).method.mining == "none"
    recipe.write_text(to_yaml(load(recipe, RunConfig)))
    assert load(recipe, RunConfig, is_saved=True).method.mining == "semi_hard"
