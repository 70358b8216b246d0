"""Compare pretraining with a bare forward-backward loop and with lightly, on the same networks, sizes and images.

    python benchmarks/bench_train.py --data PATH/imagenette_128 --video PATH/droid_web

All of it runs in the precision and on the threads that `robossl pretrain` chooses on this machine; lightly runs in fp32
and in bf16, with 0 and with 2 workers, and its best is compared. Blocks alternate, so that a change of the machine's
speed affects all of them. The medians of the ratios per round are printed. CPC is compared with its bare loop only,
because lightly has no method for clips.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as cli.py does for a run, before torch is loaded

import torch
from losses import recipe
from peers.lightly_loops import lightly_loop

from robossl.common.config import as_plain, load, with_changes
from robossl.common.malloc import keep_freed_memory
from robossl.common.ranks import Ranks
from robossl.data.ingest import ingest
from robossl.data.store import Store, open_store
from robossl.training.build import build_trainer
from robossl.training.optim import set_rates
from robossl.training.run_config import RunConfig

PREFETCHED = 7  # more than the loaders prepare ahead
SETTINGS = (
    "simclr:resnet18:64",
    "simclr:resnet18:96",
    "simclr:vit_tiny_patch16_224:96",
    "dino:resnet18:64",
    "dino:vit_tiny_patch16_224:96",
    "cpc:resnet18:64",
)
PEER_METHODS = ("simsiam", "simclr", "dino")
Block = Callable[[int], None]  # runs a number of steps


def config_for(method: str, backbone: str, size: int, store: Path) -> RunConfig:
    """Configure the small recipe of a method for another backbone, view size and store."""
    config = load(recipe(method), RunConfig)
    views = {name: value for name, value in as_plain(config)["method"].items() if isinstance(value, dict)}
    # DINO's local views have half the size of its global views.
    sizes = {f"method.{name}.size": size // 2 if "local" in name else size for name in views if "view" in name}
    changes = {
        "encoder.backbone": backbone,
        "encoder.input_hw": [size, size],
        "data.store": str(store),
        "data.epoch_over": "frames",
        "data.num_workers": 2,
        "train.steps": 1_000_000,
        "train.sinks": [],
        "knn": None,
    }
    return with_changes(config, changes | sizes)


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
    batch, method, is_bf16 = trainer.augment(trainer.loader.batch(0)), trainer.method, config.train.precision == "bf16"
    del trainer  # frees its frames

    def run(steps: int) -> None:
        for _ in range(steps):
            method.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16):
                loss = method(batch).value
            loss.backward()

    return run


def write_images(store: Store, folder: Path, count: int) -> None:
    """Write the store's JPEGs as an image folder for lightly."""
    (folder / "images").mkdir(parents=True)
    for row in range(min(count, store.num_frames)):
        (folder / "images" / f"{row:06d}.jpg").write_bytes(bytes(store.jpeg(row)))


def measure(blocks: dict[str, Block], *, rounds: int, steps: int, batch_size: int) -> dict[str, list[float]]:
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


def describe(rates: dict[str, list[float]]) -> str:
    """Return the ratios of a setting in words: the median over rounds, with the smallest and the largest round."""

    def ratio(a: str, b: str) -> str:
        each = [x / y for x, y in zip(rates[a], rates[b], strict=True)]
        return f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f})"

    parts = [
        f"over bare: resident {ratio('resident', 'bare')} (by CPU time "
        f"{ratio('resident, CPU time', 'bare, CPU time')}), workers {ratio('workers', 'bare')}"
    ]
    peers = [name for name in rates if name.startswith("lightly") and not name.endswith("CPU time")]
    if peers:
        best = max(peers, key=lambda name: statistics.median(rates[name]))
        parts.append(f"over {best}: resident {ratio('resident', best)}, workers {ratio('workers', best)}")
    parts.append(f"resident {statistics.median(rates['resident']):.0f} samples/s")
    return "; ".join(parts)


def settled(config: RunConfig, folder: Path) -> RunConfig:
    """Return the configuration with the precision and the threads that a run would choose here."""
    return build_trainer(config, Ranks.join("cpu"), folder, resume=False).config


def build_blocks(setting: str, folder: Path, *, peers: bool) -> tuple[dict[str, Block], RunConfig]:
    """Build all blocks of a setting, METHOD:BACKBONE:SIZE; return them with the configuration of our own."""
    method, backbone, size = setting.split(":")
    store = folder / ("video" if method == "cpc" else "photographs")
    config = settled(config_for(method, backbone, int(size), store), folder / "settled")
    blocks: dict[str, Block] = {"bare": bare(config, folder / "bare")}
    for name, gib in (("resident", 8.0), ("workers", 0.0)):
        blocks[name] = ours(replace(config, data=replace(config.data, resident_gib=gib)), folder / name)
    for workers in (0, 2) if peers and method in PEER_METHODS else ():
        for precision in ("fp32", "bf16"):
            blocks[f"lightly, {workers} workers, {precision}"] = lightly_loop(
                method, backbone, int(size), folder / "lightly", workers=workers, precision=precision
            )
    return blocks, config


def main() -> None:
    """Measure all settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/imagenette_128"))
    parser.add_argument("--video", type=Path, default=Path("../shared/data/droid_web"))
    parser.add_argument("--settings", nargs="+", default=SETTINGS, help="METHOD:BACKBONE:SIZE, default: all of ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="measure lightly too")
    args = parser.parse_args()
    if not (args.data.exists() and args.video.exists()):
        print(f"skipped: no images at {args.data} or no video at {args.video}")
        return
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ingest((args.data,), out=folder / "photographs", short_side=128)
        if any(setting.startswith("cpc") for setting in args.settings):
            ingest((args.video,), out=folder / "video", short_side=128)
        write_images(open_store(folder / "photographs"), folder / "lightly", 4096)
        for setting in args.settings:
            blocks, config = build_blocks(setting, folder, peers=args.peers)
            rates = measure(blocks, rounds=args.rounds, steps=args.steps, batch_size=config.train.batch_size)
            pace = f"{config.train.precision}, {config.train.threads} thread{'s' * (config.train.threads != 1)}"
            print(f"{setting} ({pace}): {describe(rates)}", flush=True)


if __name__ == "__main__":
    main()
