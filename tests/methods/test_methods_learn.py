"""Every method learns: 2,000 small steps on the shipped clips tell clips apart better than random weights do.

The question is kNN of the clip: frames of a clip's second half, cropped and coloured at random, among frames of all
clips' first halves, treated so too. Pixels and random weights do poorly at it, and no method is given the labels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from methods_kit import reference, settings_at

from robossl.augment.pipeline import Augment
from robossl.common.config import as_plain, from_mapping, load
from robossl.data.loader import BatchLoader
from robossl.data.sampler import Sampler
from robossl.data.store import Store, open_store
from robossl.encoders.encoder import Encoder, EncoderConfig, build_encoder, read_encoder
from robossl.measure.knn import weighted_knn
from robossl.measure.store_rows import spread_rows
from robossl.methods import METHODS
from robossl.training.pretrain import pretrain
from robossl.training.run_config import RunConfig
from robossl.views import ViewSpec

STEPS, BATCH, SIZE, PER_CLIP = 2000, 16, 32, 24
QUESTION = ViewSpec(size=SIZE, scale=(0.3, 1.0))
ENCODER = {"backbone": "test_resnet", "input_hw": [SIZE, SIZE], "zero_init_last": False}
CPU = torch.device("cpu")


def laid_over(settings: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """`settings` with `more`, views key by key."""
    return settings | {
        key: settings.get(key, {}) | value if isinstance(value, dict) else value for key, value in more.items()
    }


def accuracy(encoder: Encoder, store: Store) -> float:
    """Share of treated frames of the second halves whose clip is found, in %."""
    rows = spread_rows(store, np.arange(store.num_episodes), per_episode=PER_CLIP)
    sampler = Sampler(store, rows, seed=0, batch_size=len(rows))
    loader = BatchLoader(store, sampler, (QUESTION.clip,), slice(None), CPU, num_workers=0)
    config = encoder.config
    view = Augment((QUESTION,), mean=config.mean, std=config.std, seed=0, device=CPU)(loader.batch(0)).views[0]
    with torch.no_grad():
        features = encoder.eval()(view.pixels).pooled.numpy()
    drawn = sampler.anchors(0)
    clips = store.episode_of(drawn)
    middles = (store.episode_start[clips] + store.episode_start[clips + 1]) / 2
    known = drawn < middles
    scores = weighted_knn(features[known], clips[known], features[~known])
    return 100 * float((scores.argmax(axis=1) == clips[~known]).mean())


@pytest.fixture(scope="module")
def random_accuracy(clip_store_path: Path) -> float:
    """The mean of three random inits."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        encoder = build_encoder(EncoderConfig("test_resnet", input_hw=(SIZE, SIZE), zero_init_last=False))
        found.append(accuracy(encoder, open_store(clip_store_path)))
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_two_thousand_small_steps_beat_random_weights(
    name: str, clip_store_path: Path, random_accuracy: float, tmp_path: Path
) -> None:
    oracle = reference(name)
    recipe = {"name": "adamw", "lr": 1e-3, "lr_scaling": "none", "weight_decay": 1e-4, "warmup_steps": 100}
    config = from_mapping(
        {
            "method": laid_over(settings_at(name, SIZE), getattr(oracle, "LEARN_SETTINGS", {})),
            "encoder": ENCODER,
            "data": {"store": str(clip_store_path)},
            "optim": recipe | getattr(oracle, "LEARN_RECIPE", {}),
            "train": {"steps": STEPS, "batch_size": BATCH, "sinks": [], "checkpoint_every": STEPS},
        },
        RunConfig,
    )
    run = pretrain(config, out=tmp_path / "run").path
    learned = accuracy(read_encoder(run / "encoder"), open_store(clip_store_path))
    print(f"{name}: {learned:.1f} % against {random_accuracy:.1f} % of random weights")
    assert learned > random_accuracy + 2, (learned, random_accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "vit_tiny"])
@pytest.mark.parametrize("name", ["dino", "swav"])
def test_the_small_recipes_leave_ln_k_behind(name: str, backbone: str, clip_store_path: Path, tmp_path: Path) -> None:
    """Where every frame gets one output, what is asked and what is found are both even and nothing is between them."""
    recipe = load(Path(f"configs/{name}_{backbone}_droid.yaml"), RunConfig)
    mapping = as_plain(recipe)
    mapping["data"] |= {"store": str(clip_store_path), "split": None, "epoch_over": "frames"}
    mapping["train"] |= {"steps": 120, "checkpoint_every": 120}
    run = pretrain(from_mapping(mapping | {"knn": None}, RunConfig), out=tmp_path / "run").path
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "loss" in line)
    apart = last["loss"] - last["teacher_entropy" if name == "dino" else "code_entropy"]
    print(f"{name} on {backbone}: {apart:.3f} nats from what is asked to what is found")
    assert apart > 0.1
