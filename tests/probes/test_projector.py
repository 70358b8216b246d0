"""`projector:RUN`: the head that a run's loss sees, opened for probing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from methods_kit import settings_at
from safetensors.torch import load_file

from robossl.common.config import from_mapping
from robossl.errors import InputError
from robossl.exporting.parity import natural_frames
from robossl.measure.subjects import open_subject, random_reference
from robossl.measure.subjects.subject import Backbone
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig

FRAMES = natural_frames(5, (40, 56), seed=3)


def trained(method: str, store: Path, out: Path) -> Path:
    small = {"steps": 3, "batch_size": 8, "checkpoint_every": 3, "sinks": []}
    config = {
        "method": settings_at(method, 32),
        "encoder": {"backbone": "test_resnet", "input_hw": [32, 32]},
        "data": {"store": str(store)},
        "train": small,
    }
    return pretrain(from_mapping(config, RunConfig), out=out).path


def test_the_head_of_the_last_checkpoint_is_on_the_exported_feature(clip_store_path: Path, tmp_path: Path) -> None:
    run = trained("moco", clip_store_path, tmp_path / "run")
    feature, embedding = (open_subject(f"{scheme}{run}") for scheme in ("", "projector:"))
    weights = load_file(run / "checkpoints" / "step_00000003" / "method.safetensors")
    hidden = torch.from_numpy(feature(FRAMES)["pooled"]) @ weights["projector.0.weight"].T + weights["projector.0.bias"]
    expected = hidden.relu() @ weights["projector.2.weight"].T + weights["projector.2.bias"]
    np.testing.assert_allclose(embedding(FRAMES)["pooled"], expected.numpy(), rtol=1e-5, atol=1e-6)
    assert embedding.outputs == ("pooled",)
    assert (embedding.info.name, embedding.info.dim) == ("run projector", 16)
    assert embedding.digest != feature.digest
    assert random_reference(embedding).backbone == Backbone("test_resnet", "card")


def test_the_spaces_of_looc_lie_side_by_side(clip_store_path: Path, tmp_path: Path) -> None:
    run = trained("looc", clip_store_path, tmp_path / "run")
    assert open_subject(f"projector:{run}")(FRAMES)["pooled"].shape == (5, 3 * 16)


def test_what_has_no_projector_of_the_feature_is_refused(clip_store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run at .*none; pass projector:RUN"):
        open_subject(f"projector:{tmp_path / 'none'}")
    run = trained("pixpro", clip_store_path, tmp_path / "run")
    with pytest.raises(InputError, match="has no projector of the pooled feature"):
        open_subject(f"projector:{run}")
