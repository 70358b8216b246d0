"""Compare pretraining with a bare forward-backward loop and with lightly, on the same networks, sizes and images.

    python benchmarks/bench_train.py --data PATH/imagenette_128

Blocks alternate (bare, ours resident, ours with workers, lightly with 0 and 2 workers), so that a change of the
machine's speed affects all of them. The medians of the ratios per round are printed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robossl.common.config import from_mapping
from robossl.common.ranks import Ranks
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.encoders.encoder import EncoderConfig, build_encoder
from robossl.training.build import build_trainer
from robossl.training.optim import set_rates
from robossl.training.run_config import RunConfig

BATCH = 64
PREFETCHED = 7  # more than the loaders prepare ahead
Block = Callable[[int], None]  # runs a number of steps


def config_for(store: Path, backbone: str, size: int, *, workers: bool) -> RunConfig:
    """Configure SimSiam with the paper's heads on images of one size."""
    return from_mapping(
        {
            "method": {"name": "simsiam", "view": {"size": size}},
            "encoder": {"backbone": backbone, "input_hw": [size, size]},
            "data": {"store": str(store), "resident_gib": 0.0 if workers else 8.0, "num_workers": 2},
            "train": {"steps": 1_000_000, "batch_size": BATCH, "sinks": [], "precision": "fp32"},
        },
        RunConfig,
    )


def ours(config: RunConfig, folder: Path) -> Block:
    """Build a block that does everything a run does except checkpoints."""
    trainer = build_trainer(config, Ranks.join("cpu"), folder, resume=False)
    batches = enumerate(trainer.loader.batches(start=0, stop=config.train.steps))

    def run(steps: int) -> None:
        for _ in range(steps):
            step, raw = next(batches)
            lr = set_rates(
                trainer.optimizer,
                config.optim,
                step=step,
                steps=config.train.steps,
                batch_size=config.train.batch_size,
            )
            loss = trainer.step(step, trainer.augment(raw))
            if (step + 1) % config.train.log_every == 0:
                trainer.scalars(loss, lr)
            if (step + 1) % config.train.health_every == 0:
                trainer.collapse.check(loss.outputs)

    return run


def bare(config: RunConfig, folder: Path) -> Block:
    """Build a block of forward and backward of the method on one ready batch, without data and optimizer."""
    trainer = build_trainer(config, Ranks.join("cpu"), folder, resume=False)
    batch, method = trainer.augment(trainer.loader.batch(0)), trainer.method
    del trainer  # frees its frames

    def run(steps: int) -> None:
        for _ in range(steps):
            method.zero_grad(set_to_none=True)
            method(batch).value.backward()

    return run


def lightly(backbone: str, size: int, images: Path, workers: int) -> Block:
    """Build a block of lightly's own SimSiam loop on the same backbone and heads."""
    from lightly.data import LightlyDataset
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(backbone=backbone, input_hw=(size, size)))
    heads = SimSiamProjectionHead(encoder.feature_dim, 2048, 2048), SimSiamPredictionHead(2048, 512, 2048)
    model = nn.ModuleList([encoder, *heads])
    is_convolutional = backbone.startswith("resnet")
    if is_convolutional:
        model = model.to(memory_format=torch.channels_last)
    criterion = NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05 * BATCH / 256, momentum=0.9, weight_decay=1e-4)
    dataset = LightlyDataset(str(images), transform=SimSiamTransform(input_size=size, gaussian_blur=0.5))
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def endless() -> Iterator[list[Tensor]]:
        while True:
            for views, *_ in loader:
                yield views

    batches = endless()

    def run(steps: int) -> None:
        # Our own blocks turn it on in this process.
        torch.use_deterministic_algorithms(False)
        for _ in range(steps):
            views = next(batches)
            if is_convolutional:
                views = [view.to(memory_format=torch.channels_last) for view in views]
            z0, z1 = (heads[0](encoder(view).pooled) for view in views)
            loss = (criterion(heads[1](z0), z1.detach()) + criterion(heads[1](z1), z0.detach())) / 2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.use_deterministic_algorithms(True)

    return run


def write_images(store: Store, folder: Path, count: int) -> None:
    """Write the store's JPEGs as an image folder for lightly."""
    (folder / "images").mkdir(parents=True)
    for row in range(min(count, store.num_frames)):
        (folder / "images" / f"{row:06d}.jpg").write_bytes(bytes(store.jpeg(row)))


def measure(
    blocks: dict[str, Block],
    *,
    rounds: int,
    steps: int,
    batch_size: int = BATCH,
) -> dict[str, list[float]]:
    """Return samples per second of each block by round, by the clock and by this process's CPU time."""
    rates: dict[str, list[float]] = defaultdict(list)
    for round_number in range(rounds + 1):
        for name, run in blocks.items():
            if "workers" in name and "0 workers" not in name:
                run(PREFETCHED)  # use up the batches prepared during other blocks
            began, cpu = time.perf_counter(), time.process_time()
            run(steps)
            if round_number:  # the first round is a warm-up
                rates[name].append(steps * batch_size / (time.perf_counter() - began))
                rates[f"{name}, CPU time"].append(steps * batch_size / (time.process_time() - cpu))
    return rates


def report(setting: str, rates: dict[str, list[float]]) -> None:
    """Print one line per setting, ratios first."""

    def ratio(a: str, b: str) -> str:
        each = [x / y for x, y in zip(rates[a], rates[b], strict=True)]
        return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"

    best = max(("lightly, 0 workers", "lightly, 2 workers"), key=lambda name: statistics.median(rates[name]))
    print(
        f"{setting}: over bare: resident {ratio('resident', 'bare')} "
        f"(by CPU time {ratio('resident, CPU time', 'bare, CPU time')}), workers {ratio('workers', 'bare')}, "
        f"{best} {ratio(best, 'bare')}; over lightly's best: resident {ratio('resident', best)}, "
        f"workers {ratio('workers', best)}; bare {statistics.median(rates['bare']):.0f} samples/s",
        flush=True,
    )


def main() -> None:
    """Measure all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/imagenette_128"))
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["resnet18:64", "resnet18:96", "vit_tiny_patch16_224:64", "vit_tiny_patch16_224:96"],
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    args = parser.parse_args()
    if not args.data.exists():
        print(f"skipped: no images at {args.data}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ingest((args.data,), out=folder / "store", short_side=128)
        write_images(open_store(folder / "store"), folder / "lightly", 4096)
        for number, setting in enumerate(args.settings):
            backbone, size = setting.split(":")
            blocks: dict[str, Any] = {}
            for name in ("bare", "resident", "workers"):
                config = config_for(folder / "store", backbone, int(size), workers=name == "workers")
                make = bare if name == "bare" else ours
                blocks[name] = make(config, folder / f"{name}{number}")
            for workers in (0, 2):
                blocks[f"lightly, {workers} workers"] = lightly(backbone, int(size), folder / "lightly", workers)
            report(setting, measure(blocks, rounds=args.rounds, steps=args.steps))


if __name__ == "__main__":
    main()
