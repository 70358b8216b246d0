"""Sharded weights (FSDP2) over two gloo ranks: the same training as DDP, exact resume, whole checkpoints.

This file is also the script that the two ranks run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from places import kits_environment
from runs_kit import assert_same_run, config_for, weights
from safetensors.torch import load_file, save_file

from robossl.common.progress import Progress
from robossl.common.ranks import Ranks
from robossl.common.sharding import own_part
from robossl.encoders.encoder import read_encoder
from robossl.methods import METHODS
from robossl.training.build import build_trainer
from robossl.training.logging import open_sinks
from robossl.training.optim import OptimConfig
from robossl.training.pretrain import claimed, pretrain, restore
from robossl.training.run_config import OnlineKnnConfig, RunConfig
from robossl.training.trainer import Trainer
from robossl.views import Batch, ViewSpec

STEPS = 4
RUN = "simclr"  # the method of the run that is stopped and resumed
FAST = ("byol",)
PATCH = 16  # pixels of a patch of test_vit
OPTIMIZERS = {
    "byol": OptimConfig("lars", lr=0.5, decay="matrices"),
    "dino": OptimConfig("adamw", lr=0.01, clip_over="tensor"),
}


def configured(name: str, store: Path, parallel: str, **train: object) -> RunConfig:
    name, _, backbone = name.partition(" ")
    config = config_for(name, store, parallel=parallel, steps=STEPS, checkpoint_every=2, **train)
    optimizer = OPTIMIZERS.get(name, OptimConfig(lr=0.5))
    config = replace(config, optim=replace(optimizer, clip_grad_norm=0.5))
    if not backbone:
        return config
    held = {field.name: getattr(config.method, field.name) for field in fields(config.method)}
    views = {
        key: replace(view, size=max(PATCH, view.size // PATCH * PATCH))
        for key, view in held.items()
        if isinstance(view, ViewSpec)
    }
    method = replace(config.method, **views)
    return replace(config, method=method, encoder=replace(config.encoder, backbone=backbone))


def losses_of(config: RunConfig, ranks: Ranks, out: Path) -> None:
    """Train in float64, and save losses and checkpoint."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = build_trainer(config, ranks, out / "run", resume=False)
    finally:
        torch.set_default_dtype(torch.float32)
    losses = [trainer.step(step, batch_of(trainer, step)).value.detach() for step in range(STEPS)]
    trainer.save(STEPS)
    part = sum(own_part(weight).numel() for weight in trainer.method.parameters())
    save_file({"losses": torch.stack(losses), "part": torch.tensor(part)}, out / f"{ranks.rank}.safetensors")


def batch_of(trainer: Trainer, step: int) -> Batch:
    batch = trainer.augment(trainer.loader.batch(step))
    return replace(batch, views=tuple(replace(view, pixels=view.pixels.double()) for view in batch.views))


def run(config: RunConfig, ranks: Ranks, out: Path, *, resume: bool) -> None:
    trainer: Trainer = build_trainer(config, ranks, out, resume=resume)
    with claimed(trainer, resume=resume), Progress(quiet=True) as progress:
        start = restore(trainer) if resume else 0
        trainer.folder.truncate_metrics(start) if ranks.is_main else None
        sinks = open_sinks(out, (), start=start, config={}) if ranks.is_main else []
        trainer.run(start=start, progress=progress, sinks=sinks)


def worker(store: Path, out: Path, names: list[str]) -> None:
    ranks = Ranks.join("cpu")
    for name in names:
        for parallel in ("ddp", "fsdp"):
            folder = out / f"{name}_{parallel}"
            if ranks.is_main:
                folder.mkdir()
            torch.distributed.barrier()
            losses_of(configured(name, store, parallel, accumulate=2 if name == "byol" else 1), ranks, folder)
    config = replace(configured(RUN, store, "fsdp"), knn=OnlineKnnConfig("scene", every=2, frames_per_episode=1))
    run(config, ranks, out / "straight", resume=False)
    if ranks.is_main:
        shutil.copytree(out / "straight", out / "halved")
        shutil.rmtree(out / "halved" / "checkpoints" / f"step_{STEPS:08d}")
    torch.distributed.barrier()
    run(config, ranks, out / "halved", resume=True)
    ranks.close()


def on_two_ranks(store: Path, out: Path, names: list[str]) -> Path:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, __file__, str(store), str(out), *names], check=True, env=kits_environment(), timeout=900)
    return out


@pytest.fixture(scope="module")
def two(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return on_two_ranks(clip_store_path, tmp_path_factory.mktemp("sharded"), list(FAST))


def assert_equal_to_ddp(out: Path, name: str) -> None:
    sharded, whole = out / f"{name}_fsdp", out / f"{name}_ddp"
    for rank in range(2):
        one, other = (load_file(folder / f"{rank}.safetensors") for folder in (sharded, whole))
        torch.testing.assert_close(one["losses"], other["losses"], rtol=1e-10, atol=1e-10)
        assert int(one["part"]) < 0.6 * int(other["part"])
    one, other = weights(sharded / "run", STEPS), weights(whole / "run", STEPS)
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(value, other[key], rtol=1e-10, atol=1e-10, msg=key)


@pytest.mark.parametrize("name", FAST)
def test_losses_and_weights_are_those_of_ddp(two: Path, name: str) -> None:
    """With a teacher, two micro-batches, LARS and clipped gradients."""
    assert_equal_to_ddp(two, name)


@pytest.mark.slow
def test_every_method_trains_as_with_ddp(clip_store_path: Path, tmp_path: Path) -> None:
    names = [*METHODS, "dino test_vit", "moco_v3 test_vit"]
    out = on_two_ranks(clip_store_path, tmp_path, names)
    for name in names:
        assert_equal_to_ddp(out, name)


def test_a_resumed_run_is_exact(two: Path) -> None:
    assert_same_run(two / "straight", two / "halved", step=STEPS)


def test_the_monitors_see_the_whole_encoder(two: Path) -> None:
    lines = [json.loads(line) for line in (two / "straight" / "metrics.jsonl").read_text().splitlines()]
    seen = set().union(*lines)
    assert {"health/std", "health/rank", "knn/scene"} <= seen


def test_the_encoder_is_whole(two: Path) -> None:
    saved = weights(two / "straight", STEPS)
    for name, value in read_encoder(two / "straight" / "encoder").backbone.state_dict().items():
        assert torch.equal(value, saved[f"encoder.backbone.{name}"])


def test_one_rank_goes_on_where_two_stopped(two: Path, clip_store_path: Path, tmp_path: Path) -> None:
    shutil.copytree(two / "straight", tmp_path / "run")
    config = replace(configured(RUN, clip_store_path, "fsdp"), knn=None)
    longer = replace(config, train=replace(config.train, steps=STEPS + 2))
    assert pretrain(longer, out=tmp_path / "run", resume=True).path == tmp_path / "run"
    assert weights(tmp_path / "run", STEPS + 2).keys() == weights(two / "straight", STEPS).keys()


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
