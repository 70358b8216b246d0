"""Compare pretraining of every method with bare forward and backward of the same networks on ready views.

    python benchmarks/bench_methods.py [--methods simclr dino ...]

Uses the small recipes of configs/ with their sizes and batches, and the store in memory. Blocks alternate; medians are
printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as cli.py does for a run, before torch is loaded

from bench_train import bare, measure, ours, settled
from losses import WITHOUT_TEACHER, recipe

from robossl.common.config import load
from robossl.common.malloc import keep_freed_memory
from robossl.training.run_config import RunConfig


def main() -> None:
    """Print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=WITHOUT_TEACHER)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    keep_freed_memory()
    for method in args.methods:
        config = load(recipe(method), RunConfig)
        if not config.data.store.exists():
            print(f"{method}: skipped, no store at {config.data.store}")
            continue
        config = replace(config, knn=None, train=replace(config.train, sinks=(), steps=1_000_000))
        with tempfile.TemporaryDirectory() as scratch:
            config = settled(config, Path(scratch, "settled"))
            blocks = {"bare": bare(config, Path(scratch, "bare")), "ours": ours(config, Path(scratch, "ours"))}
            rates = measure(blocks, rounds=args.rounds, steps=args.steps, batch_size=config.train.batch_size)
            del blocks  # frees the frames before the next method loads its own
        clock, cpu = ratios(rates, ""), ratios(rates, ", CPU time")
        print(
            f"{method}: {statistics.median(clock):.2f} of bare ({min(clock):.2f}-{max(clock):.2f}), "
            f"{statistics.median(cpu):.2f} by CPU time ({min(cpu):.2f}-{max(cpu):.2f}); "
            f"bare {statistics.median(rates['bare']):.0f} samples/s",
            flush=True,
        )


def ratios(rates: dict[str, list[float]], clock: str) -> list[float]:
    """Return ours over bare for each round."""
    return [a / b for a, b in zip(rates[f"ours{clock}"], rates[f"bare{clock}"], strict=True)]


if __name__ == "__main__":
    main()
