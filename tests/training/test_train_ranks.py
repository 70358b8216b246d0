"""Two gloo ranks in the whole loop: backbones with weights that no feature uses, folders that differ.

This file is also the script that the two ranks run.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from places import kits_environment
from runs_kit import config_for
from safetensors.torch import load_file

from robossl.common.progress import Progress
from robossl.common.ranks import Ranks
from robossl.encoders.encoder import read_encoder
from robossl.errors import InputError
from robossl.training.build import build_trainer
from robossl.training.checkpoint import checkpoints, step_of
from robossl.training.pretrain import claimed, restore


def worker(store: Path, out: Path) -> None:
    config = config_for("simsiam", store, steps=3, sync_batch_norm=False)
    config = replace(config, encoder=replace(config.encoder, backbone="test_convnext"))
    ranks = Ranks.join("cpu")
    trainer = build_trainer(config, ranks, out / "run", resume=False)
    with claimed(trainer, resume=False), Progress(quiet=True) as progress:
        trainer.run(start=0, progress=progress, sinks=[])
    seen = out / "run" if ranks.is_main else out / "elsewhere"
    try:
        restore(build_trainer(config, ranks, seen, resume=True))
    except InputError as error:
        (out / f"{ranks.rank}.txt").write_text(str(error))
    ranks.close()


@pytest.fixture(scope="module")
def two(clip_store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("train_ranks")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*torchrun, __file__, str(clip_store_path), str(out)], check=True, env=kits_environment(), timeout=900
    )
    return out


def test_weights_that_no_feature_uses_stay_as_they_were(two: Path) -> None:
    (saved,) = checkpoints(two / "run" / "checkpoints")
    trained = load_file(saved / "method.safetensors")
    unused = {name: weight for name, weight in trained.items() if name.startswith("encoder.backbone.head.")}
    assert {name.rpartition(".")[2]: weight.unique().tolist() for name, weight in unused.items()} == {
        "weight": [1.0],
        "bias": [0.0],
    }
    assert step_of(saved) == 3
    assert read_encoder(two / "run" / "encoder").backbone.state_dict().keys() == {
        name.removeprefix("encoder.backbone.") for name in trained if name.startswith("encoder.backbone.")
    }


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_goes_on_from_the_main_rank_s_checkpoint_or_none_does(two: Path, rank: int) -> None:
    message = (two / f"{rank}.txt").read_text()
    assert "the checkpoint of step 3 in" in message
    assert "--out must be a folder that all nodes see" in message


if __name__ == "__main__":
    worker(Path(sys.argv[1]), Path(sys.argv[2]))
