"""The loop, end to end on real frames: exact resume, two ranks, signals, refusals."""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from places import CLIPS
from runs_kit import assert_same_run, config_for, read
from safetensors.torch import load_file

import robossl
from robossl.common.atomic_io import locked
from robossl.common.config import load, to_yaml
from robossl.common.ranks import Ranks
from robossl.data.ingest import ingest
from robossl.data.store import open_store
from robossl.encoders.cards import open_encoder
from robossl.errors import InputError, ResourceError
from robossl.methods import METHODS
from robossl.training.build import build_trainer
from robossl.training.checkpoint import checkpoints, step_of
from robossl.training.micro_batches import split
from robossl.training.pretrain import pretrain
from robossl.training.run_config import OnlineKnnConfig, RunConfig
from robossl.training.run_folder import RunFolder
from robossl.training.trainer import stop_signals


@pytest.mark.parametrize("method", METHODS)
def test_resume_is_exact_and_worker_loading_gives_the_same_run(
    method: str, clip_store_path: Path, tmp_path: Path
) -> None:
    config = config_for(method, clip_store_path)
    straight = pretrain(config, out=tmp_path / "straight").path
    halved = tmp_path / "halved"
    shutil.copytree(straight, halved)
    shutil.rmtree(halved / "checkpoints" / "step_00000006")
    on_workers = replace(config, data=replace(config.data, resident_gib=0.0, num_workers=1))
    pretrain(on_workers, out=halved, resume=True)
    assert_same_run(straight, halved, step=6)


def command(config: RunConfig, out: Path, *extra: str, ranks: int = 1) -> list[str]:
    out.parent.mkdir(parents=True, exist_ok=True)
    yaml = out.parent / "config.yaml"
    yaml.write_text(to_yaml(config))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    return [sys.executable, *launch, "-m", "robossl", "pretrain", str(yaml), "--out", str(out), *extra]


def run_to_the_end(command_line: list[str]) -> None:
    done = subprocess.run(command_line, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr


def run_until(command_line: list[str], out: Path, step: int, number: int) -> int:
    """Start a run, signal it and all its children once a checkpoint of at least `step` is there, wait for its end."""
    process = subprocess.Popen(command_line, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.name[5:]) >= step for path in checkpoints(out / "checkpoints")):
            for pid in [*descendants(process.pid), process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            break
        time.sleep(0.02)
    return process.wait(timeout=240)


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_with_sigkill_and_resumed_equals_straight(ranks: int, clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=20, checkpoint_every=2)
    straight, killed = tmp_path / "a" / "straight", tmp_path / "b" / "killed"
    run_to_the_end(command(config, straight, ranks=ranks))
    assert run_until(command(config, killed, ranks=ranks), killed, 6, signal.SIGKILL) == -signal.SIGKILL
    assert not (killed / "checkpoints" / "step_00000020").exists()
    run_to_the_end(command(config, killed, "--resume", ranks=ranks))
    assert_same_run(straight, killed, step=20)


def test_a_signal_to_all_processes_of_a_run_saves_and_says_so(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=100_000, checkpoint_every=5)
    out = tmp_path / "run"
    on_workers = replace(config, data=replace(config.data, resident_gib=0.0, num_workers=1))
    process = subprocess.Popen(command(on_workers, out), stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for_step(process, out, 5)
    workers = descendants(process.pid)
    with pytest.raises(ResourceError, match="another run is writing to"), locked(out, "run"):
        pass
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=240) == 143
    wait_until_gone(workers)
    done = saved_and_said(out)

    def tell() -> None:
        wait_for_step(None, out, done + 5)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor(1) as pool, pytest.raises(robossl.RobosslError, match="go on with --resume") as stopped:
        pool.submit(tell)
        pretrain(config, out=out, resume=True)
    assert isinstance(stopped.value, robossl.RunInterrupted) and stopped.value.exit_code == 143
    assert saved_and_said(out) >= done + 5


def saved_and_said(out: Path) -> int:
    assert "go on with --resume" in (out / "log.txt").read_text().splitlines()[-1]
    last = int(json.loads(read(out)[-1])["step"])
    assert step_of(checkpoints(out / "checkpoints")[-1]) == last
    return last


def wait_for_step(process: subprocess.Popen[bytes] | None, out: Path, step: int) -> None:
    deadline = time.monotonic() + 240
    while not any(step_of(path) >= step for path in checkpoints(out / "checkpoints")):
        assert (process is None or process.poll() is None) and time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_sigterm_may_come_twice() -> None:
    with stop_signals() as told:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        while len(told) < 2:
            time.sleep(0.01)
    assert told == [signal.SIGTERM, signal.SIGTERM]


def test_an_encoder_that_a_kill_at_the_end_left_unwritten_is_written(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=2)
    encoder = pretrain(config, out=tmp_path / "run") / "encoder"
    before = (encoder / "encoder.json").read_bytes()
    shutil.rmtree(encoder)
    pretrain(config, out=tmp_path / "run", resume=True)
    assert (encoder / "encoder.json").read_bytes() == before


def test_resuming_a_finished_run_leaves_its_checkpoint_as_it_is(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=1, keep_checkpoints=1)
    out = pretrain(config, out=tmp_path / "run").path
    before = [(path, path.stat().st_ino) for path in sorted(out.glob("checkpoints/*/*"))]
    pretrain(config, out=out, resume=True)
    assert before == [(path, path.stat().st_ino) for path in sorted(out.glob("checkpoints/*/*"))]


def test_what_was_trained_is_not_trained_over(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=1)
    out = pretrain(config, out=tmp_path / "run").path
    before = (out / "encoder" / "encoder.json").read_bytes()
    (out / "config.yaml").rename(tmp_path / "config.yaml")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"has checkpoints but no config\.yaml; put it back"):
            pretrain(config, out=out, resume=resume)
    (tmp_path / "config.yaml").rename(out / "config.yaml")
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(InputError, match=r"nothing to resume in .*: an encoder but no checkpoint"):
        pretrain(config, out=out, resume=True)
    assert (out / "encoder" / "encoder.json").read_bytes() == before


def test_accumulation_sees_every_sample_once(clip_store_path: Path, tmp_path: Path) -> None:
    out = pretrain(config_for("simsiam", clip_store_path, accumulate=2, steps=3), out=tmp_path / "run").path
    lines = [json.loads(line) for line in read(out)]
    assert len(lines) == 3 and all(-1 <= line["loss"] <= 1 for line in lines)


def test_the_loss_is_the_mean_over_micro_batches(clip_store_path: Path, tmp_path: Path) -> None:
    trainer = build_trainer(
        config_for("simclr", clip_store_path, accumulate=2), Ranks.join("cpu"), tmp_path / "run", resume=False
    )
    batch = trainer.augment(trainer.loader.batch(0))
    parts = [copy.deepcopy(trainer.method)(part) for part in split(batch, 2)]
    loss = trainer.step(0, batch)
    assert loss.value.item() == pytest.approx(sum(part.value.item() for part in parts) / 2, rel=1e-6)
    assert loss.metrics.keys() == parts[0].metrics.keys()
    for name, value in loss.metrics.items():
        assert value.item() == pytest.approx(sum(part.metrics[name].item() for part in parts) / 2, rel=1e-5)


def test_what_is_not_finite_is_not_saved(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, checkpoint_every=1, keep_checkpoints=2, log_every=100)
    config = replace(config, optim=replace(config.optim, lr=1e37, lr_scaling="none"))
    with pytest.raises(InputError, match=r"not finite at step \d, which is not saved; .*step_0000000\d is from before"):
        pretrain(config, out=tmp_path / "run")
    saved = checkpoints(tmp_path / "run" / "checkpoints")
    assert saved
    for path in (*saved, tmp_path / "run" / "encoder"):
        for file in path.glob("*.safetensors"):
            assert all(value.isfinite().all() for value in load_file(file).values())


def test_online_knn_leaves_a_teacher_without_drops(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("dino", clip_store_path)
    config = replace(
        config,
        encoder=replace(config.encoder, drop_path=0.5, zero_init_last=False),
        knn=OnlineKnnConfig(label="scene", every=2),
    )
    straight = pretrain(config, out=tmp_path / "straight").path
    halved = tmp_path / "halved"
    shutil.copytree(straight, halved)
    shutil.rmtree(halved / "checkpoints" / "step_00000006")
    pretrain(config, out=halved, resume=True)
    assert_same_run(straight, halved, step=6)


def test_resume_refuses_a_store_that_changed(tmp_path: Path) -> None:
    store, clips = tmp_path / "store", sorted(CLIPS.rglob("*.mp4"))
    ingest(clips[:1], out=store, short_side=96, workers=1)
    config = config_for("simsiam", store, steps=1)
    config = replace(config, data=replace(config.data, split=None))
    out = pretrain(config, out=tmp_path / "run").path
    before = open_store(store).content_hash
    shutil.rmtree(store)
    ingest(clips[:2], out=store, short_side=96, workers=1)
    message = rf"the store \S+ had content {before} at step 1 and has {open_store(store).content_hash} now"
    with pytest.raises(InputError, match=message):
        pretrain(config, out=out, resume=True)
    head = out / "checkpoints" / "step_00000001" / "state.json"
    written = json.loads(head.read_text())
    del written["state"]["stores"]
    head.write_text(json.dumps(written))  # as an earlier version wrote it
    pretrain(config, out=out, resume=True)


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("moco", {"batch_norm_groups": 3}, "3 groups of batch-norm do not divide"),
        ("moco", {"queue_size": 7}, "a queue of 7 is smaller than the batch of 8"),
        ("simsiam", {"predictor": "moving_average", "bank_size": 5}, "the moving-average bank has 5 rows"),
    ],
)
def test_what_does_not_fit_leaves_no_folder_and_the_corrected_command_works(
    method: str, wrong: dict[str, object], message: str, clip_store_path: Path, tmp_path: Path
) -> None:
    config = config_for(method, clip_store_path, steps=1)
    with pytest.raises(InputError, match=message):
        pretrain(replace(config, method=replace(config.method, **wrong)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    pretrain(config, out=tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_whose_run_saved_nothing_is_taken_over(resume: bool, clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=1)
    folder = RunFolder(tmp_path / "run")
    folder.claim(replace(config, seed=7), resume=False)
    (folder.checkpoints / ".step_00000001.tmp").mkdir(parents=True)
    pretrain(config, out=folder.path, resume=resume)
    assert load(folder.path / "config.yaml", RunConfig) == config
    shutil.rmtree(folder.checkpoints)
    with pytest.raises(InputError, match="already holds a run"):  # its encoder
        pretrain(config, out=folder.path)


def test_two_runs_never_share_a_folder(clip_store_path: Path, tmp_path: Path) -> None:
    with locked(tmp_path / "run", "run"), pytest.raises(ResourceError, match="another run is writing to"):
        pretrain(config_for("simsiam", clip_store_path, steps=1), out=tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


COUNTS = ("steps", "batch_size", "accumulate", "checkpoint_every", "keep_checkpoints", "log_every", "health_every")


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("name", COUNTS)
def test_counts_below_one_are_refused(name: str, count: int) -> None:
    with pytest.raises(InputError, match=rf"train: {name} must be 1 or more, got {count}"):
        config_for("simsiam", Path("store"), **{name: count})


@pytest.mark.parametrize("name", ["every", "frames_per_episode"])
def test_counts_of_the_online_knn_below_one_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be 1 or more, got 0"):
        OnlineKnnConfig("task", **{name: 0})


def test_an_online_knn_on_the_frames_it_searches_is_refused() -> None:
    with pytest.raises(InputError, match=r"train_split and test_split must differ, got 'val' for both"):
        OnlineKnnConfig("task", train_split="val")


def test_resume_with_another_configuration_names_what_differs(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simsiam", clip_store_path, steps=2)
    out = pretrain(config, out=tmp_path / "run").path
    with pytest.raises(InputError, match=r"already holds a run; add --resume"):
        pretrain(config, out=out)
    changed = replace(config, optim=replace(config.optim, lr=0.1))
    with pytest.raises(InputError, match=r"another configuration \(optim\.lr: 0\.05 -> 0\.1\)"):
        pretrain(changed, out=out, resume=True)
    shorter = replace(config, train=replace(config.train, steps=1), optim=replace(config.optim, warmup_steps=0))
    with pytest.raises(InputError, match=r"a run of 2 steps, got --train\.steps 1; a run can be lengthened, not short"):
        pretrain(shorter, out=out, resume=True)


def test_batch_larger_than_the_data(clip_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch of 1000000 is larger than the data: \d+ frames"):
        pretrain(config_for("simsiam", clip_store_path, batch_size=1_000_000), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_run_folder_is_complete(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simclr", clip_store_path, steps=4, sinks=["tensorboard"])
    out = pretrain(config, out=tmp_path / "run").path
    names = {path.name for path in out.iterdir()}
    assert names == {".lock", "config.yaml", "metrics.jsonl", "log.txt", "tensorboard", "checkpoints", "encoder"}
    assert any((out / "tensorboard").iterdir())
    lines = [json.loads(line) for line in read(out)]
    assert {"loss", "lr", "samples_per_s", "health/std", "health/rank"} <= set().union(*lines)
    log = (out / "log.txt").read_text()
    assert "pretrain simclr on test_resnet" in log and f"epochs over {config.data.epoch_over}) on" in log


def test_a_run_that_starts_from_another_names_the_data_of_both(clip_store_path: Path, tmp_path: Path) -> None:
    first = pretrain(config_for("simsiam", clip_store_path, steps=1), out=tmp_path / "first").path
    other = tmp_path / "other"
    ingest((next(CLIPS.rglob("*.mp4")),), out=other, short_side=96, workers=1, licence="CC BY-NC 4.0")
    config = config_for("simsiam", other, steps=1)
    config = replace(config, data=replace(config.data, split=None))
    second = pretrain(replace(config, encoder=replace(config.encoder, init=str(first))), out=tmp_path / "second").path
    third = pretrain(replace(config, encoder=replace(config.encoder, init=str(second))), out=tmp_path / "third").path
    stores = [open_store(path).content_hash for path in (clip_store_path, other)]
    for run in (second, third):
        _, card = open_encoder(run / "encoder")
        assert list(card.data) == stores
        assert "data under CC BY-NC 4.0: not for commercial use" in card.warnings
        assert not any("started from" in warning for warning in card.warnings)
    weights_of_others = tmp_path / "weights.safetensors"
    shutil.copy(first / "encoder" / "encoder.safetensors", weights_of_others)
    fourth = pretrain(
        replace(config, encoder=replace(config.encoder, init=str(weights_of_others))), out=tmp_path / "fourth"
    ).path
    fifth = pretrain(replace(config, encoder=replace(config.encoder, init=str(fourth))), out=tmp_path / "fifth").path
    for run, start in ((fourth, "weights.safetensors"), (fifth, "fourth")):
        _, card = open_encoder(run / "encoder")
        assert f"training started from {start}, whose licence is not recorded" in card.warnings
