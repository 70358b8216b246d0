"""Compare policies of waiting threads while training, alone and beside a busy process.

    python benchmarks/bench_neighbour.py [--rounds 3] [--seconds 8]

OpenMP's threads spin for some milliseconds before they sleep. On a machine with other work, a spinning thread occupies
the core that the awaited thread needs. A thread that sleeps at once (OMP_WAIT_POLICY=PASSIVE) wakes late. `robossl`
lets threads spin for a thirtieth of the default (GOMP_SPINCOUNT=10000). Each block is a process that trains ResNet-18
at 64 px on all cores; the neighbour computes without end.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from robossl.common.cpus import num_cpus

BLOCK = """
import sys, time
import timm, torch
torch.set_num_threads(int(sys.argv[1]))
model, frames = timm.create_model("resnet18", num_classes=0), torch.randn(32, 3, 64, 64)
model(frames).sum().backward()
steps, began = 0, time.perf_counter()
while time.perf_counter() - began < float(sys.argv[2]):
    model(frames).sum().backward()
    steps += 1
print(steps * len(frames) / (time.perf_counter() - began))
"""
POLICIES = {"soon": {"GOMP_SPINCOUNT": "10000"}, "at once": {"OMP_WAIT_POLICY": "PASSIVE"}, "default": {}}
VARIABLES = {name for policy in POLICIES.values() for name in policy}


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Run one busy process if wanted."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if process is not None:
            process.kill()
            process.wait()


def measure(policy: dict[str, str], seconds: float) -> float:
    """Return frames per second."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | policy
    line = [sys.executable, "-c", BLOCK, str(num_cpus()), str(seconds)]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print two lines alone and two beside a neighbour."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    rates: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for _ in range(args.rounds):
        for busy in (False, True):
            with neighbour(busy):
                for name, policy in POLICIES.items():
                    rates[busy, name].append(measure(policy, args.seconds))
    for busy in (False, True):
        for name in ("soon", "at once"):
            ratios = [a / b for a, b in zip(rates[busy, name], rates[busy, "default"], strict=True)]
            print(
                f"{'beside a neighbour' if busy else 'alone':18}  {name} / default {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}-{max(ratios):.2f}), {statistics.median(rates[busy, name]):.0f} frames/s"
            )


if __name__ == "__main__":
    main()
