"""Precision and threads that a run measures when it starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import kits_environment
from runs_kit import assert_same_run, config_for

from robossl.common.config import to_yaml
from robossl.errors import InputError
from robossl.training.pace import Setting, candidates, choose
from robossl.training.pretrain import pretrain
from robossl.training.run_config import TrainConfig, load_saved
from robossl.training.run_folder import RunFolder


def saved(run: Path) -> TrainConfig:
    return load_saved(run / "config.yaml").train


def test_a_run_that_measures_equals_one_that_is_told_to_the_last_bit(clip_store_path: Path, tmp_path: Path) -> None:
    measured = config_for("simsiam", clip_store_path, precision="auto", threads=None)
    pretrain(measured, out=tmp_path / "measured")
    chosen = saved(tmp_path / "measured")
    assert chosen.precision in ("fp32", "bf16")
    assert chosen.threads == torch.get_num_threads()  # what OMP_NUM_THREADS asks for
    told = config_for("simsiam", clip_store_path, precision=chosen.precision, threads=chosen.threads)
    pretrain(told, out=tmp_path / "told")
    assert_same_run(tmp_path / "measured", tmp_path / "told", 6)
    log = (tmp_path / "measured" / "log.txt").read_text()
    assert f"in {chosen.precision};" in log and "measured here" in log
    assert "measured here" not in (tmp_path / "told" / "log.txt").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_keeps_its_precision(clip_store_path: Path, tmp_path: Path, precision: str) -> None:
    pretrain(config_for("simsiam", clip_store_path, precision=precision), out=tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step_00000006")
    pretrain(config_for("simsiam", clip_store_path, precision="auto", threads=None), out=tmp_path / "run", resume=True)
    assert (saved(tmp_path / "run").precision, saved(tmp_path / "run").threads) == (precision, 0)
    assert_same_run(tmp_path / "run", tmp_path / "straight", 6)
    other = "bf16" if precision == "fp32" else "fp32"
    with pytest.raises(InputError, match=f'train.precision: "{precision}" -> "{other}"'):
        pretrain(config_for("simsiam", clip_store_path, precision=other), out=tmp_path / "run", resume=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_from_before_the_measurement_keeps_its_precision_and_threads(
    clip_store_path: Path, tmp_path: Path, precision: str
) -> None:
    config = config_for("simsiam", clip_store_path, precision=precision, threads=0)
    old = to_yaml(config).replace("  threads: 0\n", "")
    assert "threads" not in old
    (tmp_path / "config.yaml").write_text(old)
    assert (saved(tmp_path).precision, saved(tmp_path).threads) == (precision, 0)


def test_a_loop_claims_the_folder_of_a_run_that_chose(clip_store_path: Path, tmp_path: Path) -> None:
    chosen = config_for("simsiam", clip_store_path, precision="bf16", threads=1)
    pretrain(chosen, out=tmp_path / "run")
    RunFolder(tmp_path / "run").claim(
        config_for("simsiam", clip_store_path, precision="auto", threads=None), resume=True
    )
    assert (saved(tmp_path / "run").precision, saved(tmp_path / "run").threads) == ("bf16", 1)


def test_the_environment_and_the_configuration_leave_settings_open(clip_store_path: Path) -> None:
    program = (
        "import sys; from runs_kit import config_for; from robossl.training.pace import candidates\n"
        "from pathlib import Path; config = config_for('simsiam', Path('x'), precision='auto', threads=None)\n"
        "print([tuple(each) for each in candidates(config)])"
    )
    environment = kits_environment()
    del environment["OMP_NUM_THREADS"]
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    number = len(os.sched_getaffinity(0))
    found = eval(done.stdout)
    assert {threads for _, threads in found} >= {1}
    assert max(threads for _, threads in found) <= number
    assert found[:2] == [("fp32", 1), ("bf16", 1)]
    told = config_for("simsiam", clip_store_path, precision="bf16", threads=3)
    assert candidates(told) == [Setting("bf16", 3)]


def test_the_simpler_setting_wins_unless_another_is_clearly_faster() -> None:
    slow, fast = Setting("fp32", 1), Setting("bf16", 2)
    assert choose({slow: 100.0, fast: 105.0}) == slow
    assert choose({slow: 100.0, fast: 120.0}) == fast
