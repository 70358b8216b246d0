"""Compiled encoders: the losses of eager ones, exact resume, and one clear line where nothing can be compiled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs_kit import assert_same_run, config_for, read, weights

from robossl.errors import InputError
from robossl.methods import METHODS
from robossl.training.compiling import cache_folder
from robossl.training.pretrain import pretrain
from robossl.training.run_config import OnlineKnnConfig, RunConfig

STEPS = 5
TOLERANCE = 1e-3  # relative, of the loss in fp32 after five steps; the first step differs by 1e-6


def configured(name: str, store: Path, *, compile: bool) -> RunConfig:
    config = config_for(name, store, compile=compile, steps=STEPS, checkpoint_every=2)
    # Rounding errors grow from step to step, with this learning rate slowly. Barlow Twins on eight frames is the worst.
    return replace(
        config,
        optim=replace(config.optim, lr=0.0002),
        encoder=replace(config.encoder, zero_init_last=False),
        knn=OnlineKnnConfig("scene", every=STEPS, frames_per_episode=1),
    )


def change_between(run: Path, other: Path, *, before: int = STEPS) -> float:
    """The norm of the difference between the last weights of a run and the weights of another at step `before`."""
    one, two = weights(run, STEPS), weights(other, before)
    gaps = [one[name].double() - two[name].double() for name in one if name in two and ".running_" not in name]
    return float(torch.stack([gap.norm() for gap in gaps]).norm())


def test_without_a_compiler_one_line_says_what_to_do(
    clip_store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler, and .*nothing is not here; install g\+\+"):
        pretrain(configured("simclr", clip_store_path, compile=True), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sharded_encoders_are_not_compiled(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simclr", clip_store_path, compile=True, parallel="fsdp")
    with pytest.raises(InputError, match=r"train\.compile does not go with train\.parallel fsdp; choose ddp"):
        pretrain(config, out=tmp_path / "run")


def test_kernels_are_kept_where_torch_is_told_or_in_the_user_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/fast/kernels")
    assert cache_folder() == Path("/fast/kernels")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/.cache")
    assert cache_folder() == Path("/home/me/.cache/robossl/inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_losses_are_those_of_eager_encoders_and_a_resumed_run_is_exact(
    name: str, clip_store_path: Path, tmp_path: Path
) -> None:
    eager = pretrain(configured(name, clip_store_path, compile=False), out=tmp_path / "eager").path
    torch._dynamo.reset()
    config = configured(name, clip_store_path, compile=True)
    straight = pretrain(config, out=tmp_path / "straight").path
    one, other = ([json.loads(line)["loss"] for line in read(run)] for run in (eager, straight))
    assert other == pytest.approx(one, rel=TOLERANCE, abs=TOLERANCE)
    assert change_between(straight, eager) < 0.03 * change_between(eager, eager, before=2)
    assert "compiled: the first step took" in (straight / "log.txt").read_text()
    assert not torch._dynamo.utils.counters["graph_break"]

    halved = tmp_path / "halved"
    shutil.copytree(straight, halved)
    for step in (4, STEPS):
        shutil.rmtree(halved / "checkpoints" / f"step_{step:08d}")
    torch._dynamo.reset()  # as in a new process
    pretrain(config, out=halved, resume=True)
    assert_same_run(straight, halved, step=STEPS)
