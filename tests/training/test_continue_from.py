"""Continue from a trained encoder: frozen stages and warm heads, of every method, in parts, on two ranks, resumed.

This file is also the script that the two ranks run.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from methods_kit import TINY, configured, train_twice
from places import kits_environment
from runs_kit import assert_same_run, config_for, weights

from robossl.common.progress import Progress
from robossl.common.ranks import Ranks
from robossl.encoders.encoder import build_encoder
from robossl.errors import InputError
from robossl.methods import METHODS
from robossl.methods.base import Method, encoders_of
from robossl.training.adapt import shorten_warmup
from robossl.training.build import build_trainer, place_batch_norm
from robossl.training.pretrain import claimed, pretrain
from robossl.training.run_config import RunConfig

FROZEN = ("backbone.conv1", "backbone.bn1", "backbone.layer1", "backbone.layer2")  # stem and two stages of test_resnet


def options(config: RunConfig, *, stages: int | None = None, **optim: object) -> RunConfig:
    encoder = replace(config.encoder, frozen_stages=stages, zero_init_last=False)
    return replace(config, encoder=encoder, optim=replace(config.optim, **optim))  # type: ignore[arg-type]


def frozen_part(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if any(part in name for part in FROZEN)}


@pytest.mark.parametrize("name", METHODS)
def test_frozen_stages_stay_equal_in_all_copies(name: str) -> None:
    torch.manual_seed(0)
    method: Method = configured(name).build(build_encoder(replace(TINY, frozen_stages=2)))
    method = place_batch_norm(method.double().train(), config_for("simsiam", Path("none")), Ranks.join("cpu"))
    before = copy.deepcopy([encoder.state_dict() for encoder in encoders_of(method)])
    train_twice(method, method, parts=2)
    moved = False
    for encoder, was in zip(encoders_of(method), before, strict=True):
        for name, value in encoder.state_dict().items():
            if name in frozen_part(was):
                assert torch.equal(value, was[name]), name
            moved |= not torch.equal(value, was[name])
    assert moved


def worker(store: Path, out: Path) -> None:
    ranks = Ranks.join("cpu")
    trainer = build_trainer(two_rank_config(store), ranks, out / "run", resume=False)
    with claimed(trainer, resume=False), Progress(quiet=True) as progress:
        trainer.run(start=0, progress=progress, sinks=[])
    ranks.close()


def two_rank_config(store: Path) -> RunConfig:
    return options(config_for("moco", store, steps=2, checkpoint_every=1), stages=2, warm_head_steps=1)


@pytest.fixture(scope="module")
def two(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("continue_from")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, __file__, str(clip_store_path), str(out)], check=True, env=kits_environment(), timeout=900
    )
    return out / "run"


def test_two_ranks_leave_frozen_stages_and_held_encoders_as_they_were(two: Path, clip_store_path: Path) -> None:
    before = start_of(two_rank_config(clip_store_path))
    inside = encoder_names(before)
    first, second = (differing(before, weights(two, step)) for step in (1, 2))
    assert first and not first & inside
    assert second & inside and not second & frozen_part(before).keys()


def start_of(config: RunConfig) -> dict[str, torch.Tensor]:
    """What a method is before its first step."""
    torch.manual_seed(config.seed)
    return config.method.build(build_encoder(config.encoder)).state_dict()


def encoder_names(state: dict[str, torch.Tensor]) -> set[str]:
    """Names of all that encoders hold, those of teachers too."""
    return {name for name in state if "backbone." in name}


def differing(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


@pytest.mark.parametrize("name", ["simsiam", "moco", "dino"])
def test_warm_heads_hold_the_encoder_and_resume_exactly(name: str, clip_store_path: Path, tmp_path: Path) -> None:
    """Also with weight decay, momentum, layer decay, and a limit of the gradients' norm."""
    words = {"name": "adamw", "lr": 0.01, "warm_head_steps": 2, "layer_decay": 0.5, "clip_grad_norm": 1.0}
    config = options(config_for(name, clip_store_path, steps=4, checkpoint_every=1, accumulate=2), stages=0, **words)
    run = pretrain(config, out=tmp_path / "straight").path
    before = start_of(config)
    inside = encoder_names(before)
    for step in (1, 2):
        changed = differing(before, weights(run, step))
        assert changed and not changed & inside
    after = differing(before, weights(run, 4)) & inside
    assert any(key.endswith("running_mean") for key in after) and any(key.endswith("conv2.weight") for key in after)
    for step in (1, 2, 3):  # before, at and after the boundary
        resumed = Path(shutil.copytree(run, tmp_path / f"from_{step}"))
        for later in range(step + 1, 5):
            shutil.rmtree(resumed / "checkpoints" / f"step_{later:08d}")
        shutil.rmtree(resumed / "encoder")
        pretrain(resumed, resume=True)
        assert_same_run(run, resumed, step=4)


def test_the_norm_of_warm_heads_is_clipped_without_the_encoder(clip_store_path: Path, tmp_path: Path) -> None:
    """The encoder's gradient, much the larger here, must not shrink the step of the heads."""
    config = config_for("simsiam", clip_store_path, steps=2, checkpoint_every=1)
    words = {"lr": 1.0, "lr_scaling": "none", "momentum": 0.0, "weight_decay": 0.0, "clip_grad_norm": 1e-3}
    config = options(config, warm_head_steps=1, **words)
    before, after = start_of(config), weights(pretrain(config, out=tmp_path / "run").path, 1)
    steps = [after[key] - value for key, value in before.items() if value.is_floating_point() and "running" not in key]
    norm = torch.stack([step.norm() for step in steps]).norm().item()
    assert norm == pytest.approx(1e-3, rel=1e-2)


def test_a_warm_up_of_heads_that_does_not_fit_is_shortened(clip_store_path: Path) -> None:
    config = options(config_for("simsiam", clip_store_path, steps=20), warm_head_steps=20)
    shortened, lines = shorten_warmup(config)
    assert (shortened.optim.warm_head_steps, shortened.optim.warmup_steps) == (2, 0)
    assert lines == ["the warm-up of the heads of 20 steps does not fit into a run of 20: it is shortened to 2"]


def test_a_method_without_heads_has_none_to_warm(clip_store_path: Path, tmp_path: Path) -> None:
    config = options(config_for("r3m", clip_store_path), warm_head_steps=1)
    with pytest.raises(InputError, match=r"trains the heads first, but R3M has no heads; set it to 0"):
        pretrain(config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]))
