"""Compare training with freed memory kept, as in `robossl pretrain`, and with the C library's default.

    python benchmarks/bench_memory.py [--rounds 3] [--seconds 12]

Each block is a process that trains ResNet-18 at 64 px on one thread and counts its page faults.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

BLOCK = """
import resource, sys, time
import timm, torch
from robossl.common.malloc import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
torch.set_num_threads(1)
model, frames = timm.create_model("resnet18", num_classes=0), torch.randn(64, 3, 64, 64)
optimizer = torch.optim.AdamW(model.parameters())

def step():
    optimizer.zero_grad()
    model(frames).sum().backward()
    optimizer.step()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
steps, before, began = 0, faults(), time.perf_counter()
while time.perf_counter() - began < float(sys.argv[2]):
    step()
    steps += 1
print(steps * len(frames) / (time.perf_counter() - began), (faults() - before) / steps)
"""


def measure(how: str, seconds: float) -> tuple[float, float]:
    """Return frames per second and page faults per step."""
    line = [sys.executable, "-c", BLOCK, how, str(seconds)]
    done = subprocess.run(line, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True)
    rate, faults = map(float, done.stdout.split())
    return rate, faults


def main() -> None:
    """Print the ratio and the page faults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12)
    args = parser.parse_args()
    pairs = [(measure("kept", args.seconds), measure("default", args.seconds)) for _ in range(args.rounds)]
    ratios = [kept[0] / default[0] for kept, default in pairs]
    print(
        f"kept / default {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) in frames/s; "
        f"page faults per step {statistics.median(kept[1] for kept, _ in pairs):.0f} against "
        f"{statistics.median(default[1] for _, default in pairs):.0f}"
    )


if __name__ == "__main__":
    main()
