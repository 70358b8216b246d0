"""Compare precisions and numbers of threads: bf16 with fp32, and the chosen setting with the others beside a neighbour.

    python benchmarks/bench_pace.py [--rounds 5] [--neighbours 0 1]

Forward and backward of a backbone as in `robossl.training.pace`, in blocks that alternate. The first table has the
ratio of bf16 to fp32 on one thread and on all. The second says, alone and beside a busy process, what share of the best
setting's speed the setting reaches that `robossl pretrain` chooses by its short measurement.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as cli.py does for a run, before torch is loaded

import torch
from bench_neighbour import neighbour
from bench_train import config_for

from robossl.common.malloc import keep_freed_memory
from robossl.encoders.encoder import build_encoder
from robossl.methods.base import Method
from robossl.training.pace import Setting, candidates, choose, measure
from robossl.training.run_config import RunConfig

BACKBONES = ("resnet18:64", "resnet18:96", "vit_tiny_patch16_224:96", "vit_tiny_patch16_224:224")


def method_for(name: str) -> tuple[RunConfig, Method, bool]:
    """Return SimCLR on a backbone, BACKBONE:SIZE, with its configuration and whether it runs in channels_last."""
    backbone, size = name.split(":")
    config = config_for("simclr", backbone, int(size), Path("store"))
    return config, config.method.build(build_encoder(config.encoder)), backbone.startswith("resnet")


def rounds_of(name: str, rounds: int) -> tuple[dict[Setting, list[float]], list[Setting]]:
    """Measure a backbone `rounds` times; return the rates of all settings, and the setting chosen in each round.

    The chosen setting comes from the previous round's measurement, so that its rate is not the one it was chosen by.
    """
    config, method, channels_last = method_for(name)
    rates: dict[Setting, list[float]] = defaultdict(list)
    chosen: list[Setting] = []
    last: Setting | None = None
    for _ in range(rounds + 1):
        found = measure(method, config, candidates(config), channels_last=channels_last)
        if last is not None:
            chosen.append(last)
            for setting, rate in found.items():
                rates[setting].append(rate)
        last = choose(found)
    return rates, chosen


def main() -> None:
    """Print a line for each backbone, alone and beside neighbours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=BACKBONES, help="BACKBONE:SIZE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--neighbours", type=int, nargs="+", choices=(0, 1), default=(0, 1))
    args = parser.parse_args()
    keep_freed_memory()
    print(f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} CPUs")
    for name in args.backbones:
        for busy in args.neighbours:
            with neighbour(bool(busy)):
                rates, chosen = rounds_of(name, args.rounds)
            gains = []
            for threads in sorted({setting.threads for setting in rates}):
                pairs = zip(rates[Setting("bf16", threads)], rates[Setting("fp32", threads)], strict=True)
                each = [a / b for a, b in pairs]
                gains.append(f"{statistics.median(each):.2f} ({min(each):.2f}-{max(each):.2f}) on {threads}")
            shares = [rates[one][i] / max(rate[i] for rate in rates.values()) for i, one in enumerate(chosen)]
            print(
                f"{name} {'beside a neighbour' if busy else 'alone'}: bf16 over fp32 {', '.join(gains)}; the chosen "
                f"setting reaches {statistics.median(shares):.2f} ({min(shares):.2f}) of the best; "
                + ", ".join(f"{each.describe()} {statistics.median(rate):.0f}" for each, rate in rates.items())
                + " frames/s",
                flush=True,
            )


if __name__ == "__main__":
    main()
