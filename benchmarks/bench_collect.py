"""Compare collection on two workers and on one, in frames per second of whole collections.

    python benchmarks/bench_collect.py [--rounds 3] [--frames 30000] [--env robossl/Push-v0] [--agent random]

The time includes rendering, h264, parquet and the start of the processes. For comparison, the machine's own ratio is
measured with processes that only count; it is below 2 with hyperthreads or other load.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

COUNT = """
import sys, time
counted, end = 0, time.perf_counter() + float(sys.argv[1])
while time.perf_counter() < end:
    counted += 1
print(counted)
"""


def machine_ratio(seconds: float = 2.0) -> float:
    """Return how much faster two processes count than one at this moment."""
    line = [sys.executable, "-c", COUNT, str(seconds)]

    def count(number: int) -> int:
        processes = [subprocess.Popen(line, stdout=subprocess.PIPE, text=True) for _ in range(number)]
        return sum(int(process.communicate()[0]) for process in processes)

    alone = count(1)
    return count(2) / alone


def collect_rate(args: argparse.Namespace, workers: int) -> float:
    """Return frames per second of one whole collection."""
    with tempfile.TemporaryDirectory() as scratch:
        line = [sys.executable, "-m", "robossl", "collect", "--env", args.env, "--agent", args.agent]
        line += ["--frames", str(args.frames), "--workers", str(workers), "--out", str(Path(scratch, "out"))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        began = time.perf_counter()
        subprocess.run(line, env=environment, capture_output=True, check=True)
        return args.frames / (time.perf_counter() - began)


def main() -> None:
    """Print the ratio and the machine's own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--env", default="robossl/Push-v0")
    parser.add_argument("--agent", default="random")
    args = parser.parse_args()
    rates: dict[int, list[float]] = defaultdict(list)
    machine = []
    for _ in range(args.rounds):
        machine.append(machine_ratio())
        for workers in (1, 2):
            rates[workers].append(collect_rate(args, workers))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    print(
        f"{args.env} by {args.agent}: 2 workers / 1 {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}), "
        f"{statistics.median(rates[2]):.0f} and {statistics.median(rates[1]):.0f} frames/s; "
        f"two processes that only count / one {statistics.median(machine):.2f}"
    )


if __name__ == "__main__":
    main()
