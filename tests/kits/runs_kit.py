"""Small runs, and whether two of them are equal to the last bit."""

import json
from pathlib import Path

import torch
from methods_kit import settings_at
from safetensors.torch import load_file

from robossl.common.config import from_mapping
from robossl.training.run_config import RunConfig


def config_for(method: str, store: Path, **train: object) -> RunConfig:
    small = {
        "steps": 6,
        "batch_size": 8,
        "checkpoint_every": 3,
        "keep_checkpoints": 9,
        "log_every": 1,
        "sinks": [],
        "precision": "fp32",
        "threads": 0,
    }
    return from_mapping(
        {
            "method": settings_at(method, 32),
            "encoder": {"backbone": "test_resnet", "input_hw": [32, 32]},
            "data": {"store": str(store)},
            "train": small | {"health_every": 2} | train,
        },
        RunConfig,
    )


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints" / f"step_{step:08d}"
    return load_file(folder / "method.safetensors") | load_file(folder / "optimizer.safetensors")


def read(run: Path) -> list[str]:
    return (run / "metrics.jsonl").read_text().splitlines()


def assert_same_run(a: Path, b: Path, step: int) -> None:
    one, other = weights(a, step), weights(b, step)
    assert one.keys() == other.keys()
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differing
    timed = {"samples_per_s"}
    lines = [[{k: v for k, v in json.loads(line).items() if k not in timed} for line in read(run)] for run in (a, b)]
    assert lines[0] == lines[1]
