"""Smaller views in the first steps: which sizes, when the full size begins, and exact resume across that step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runs_kit import assert_same_run, config_for

from robossl.common.ranks import Ranks
from robossl.errors import InputError
from robossl.methods import METHODS
from robossl.training.build import build_trainer
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig, TrainConfig


def small_views(method: str, store: Path, **train: object) -> RunConfig:
    return config_for(method, store, small_views_share=0.5, small_views_scale=0.5, **train)


def sizes_at(config: RunConfig, out: Path, *steps: int) -> list[int]:
    trainer = build_trainer(config, Ranks.join("cpu"), out, resume=False)
    raw = trainer.loader.batch(0)
    return [view.pixels.shape[-1] for step in steps for view in trainer.augment_at(step)(raw).views]


def test_half_of_the_steps_use_half_the_size(clip_store_path: Path, tmp_path: Path) -> None:
    config = small_views("simclr", clip_store_path)
    assert sizes_at(config, tmp_path, 0, 2, 3, 5) == [16, 16, 16, 16, 32, 32, 32, 32]


def test_sizes_are_multiples_of_a_patch(clip_store_path: Path, tmp_path: Path) -> None:
    config = config_for("simclr", clip_store_path, small_views_share=0.5, small_views_scale=0.3)
    assert sizes_at(config, tmp_path, 0) == [16, 16]


def test_without_the_option_every_step_uses_the_full_size(clip_store_path: Path, tmp_path: Path) -> None:
    assert sizes_at(config_for("simclr", clip_store_path), tmp_path, 0) == [32, 32]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_trains_with_them_or_refuses(method: str, clip_store_path: Path, tmp_path: Path) -> None:
    config = small_views(method, clip_store_path, steps=2, checkpoint_every=2)
    if method == "cpc_rows":
        with pytest.raises(InputError, match=r"needs views of a fixed size.*set it to 0"):
            pretrain(config, out=tmp_path)
        assert not any(tmp_path.iterdir())
    else:
        pretrain(config, out=tmp_path)


def test_resume_across_the_change_equals_a_straight_run(clip_store_path: Path, tmp_path: Path) -> None:
    config = small_views("moco", clip_store_path, checkpoint_every=2)
    pretrain(config, out=tmp_path / "straight")
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / f"step_{step:08d}")
    pretrain(config, out=tmp_path / "resumed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed", 6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5])
def test_a_scale_that_is_no_fraction_is_refused(scale: float) -> None:
    with pytest.raises(InputError, match=r"with 0\.667, views of 96 px start at 64 px"):
        TrainConfig(small_views_scale=scale)
