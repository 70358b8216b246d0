"""Run every benchmark in turn (`make bench`); benchmarks without their data say so and are skipped."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

BENCHMARKS = (
    "bench_store",
    "bench_ingest",
    "bench_scale",
    "bench_augment",
    "bench_train",
    "bench_methods",
    "bench_pace",
    "bench_neighbour",
    "bench_memory",
    "bench_envs",
    "bench_metaworld",
    "bench_collect",
    "bench_probes",
    "bench_probe_memory",
    "bench_serving",
    "bench_serving_faults",
)


def main() -> None:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=BENCHMARKS, help=f"some of {', '.join(BENCHMARKS)}")
    failed = []
    for name in parser.parse_args().names:
        print(f"\n# {name}", flush=True)
        if subprocess.run([sys.executable, str(Path(__file__).with_name(f"{name}.py"))]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
