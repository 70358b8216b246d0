"""Plan an ingest of 100 million frames from what this machine measures: time, disk, memory, files, time to open.

Usage: python benchmarks/bench_scale.py [--data PATH/droid_web] [--frames 100000000] [--machines 16] [--workers 16]

It ingests part of real video with one process, writes the index of synthetic stores of two sizes, and merges the parts
of one. Everything else follows by proportion, as the printed table says.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench_ingest import write_million

from robossl.data.ingest import ingest
from robossl.data.jobs import MAX_SHARDS, SHARD_FRAMES
from robossl.data.store import open_store

FRAMES_EACH = 300  # frames of an episode: ten seconds at 30 frames/s
SIZES = (600_000, 3_000_000)  # frames of the synthetic stores


@dataclass(frozen=True, slots=True)
class IngestRate:
    """What one process stores of real video."""

    frames_per_s: float
    bytes_per_frame: float


@dataclass(frozen=True, slots=True)
class IndexCost:
    """The index of a synthetic store: its size, the time to merge two halves into it, and the time to open it."""

    num_frames: int
    num_bytes: int
    merge_seconds: float
    merge_mib: float
    open_seconds: float


def measure_ingest(data: Path, scratch: Path, short_side: int, max_videos: int) -> IngestRate:
    """Ingest some videos with one process."""
    folder = scratch / "videos"
    folder.mkdir()
    for number, path in enumerate(sorted(data.glob("**/*.mp4"))[:max_videos]):
        shutil.copyfile(path, folder / f"{number:04d}.mp4")
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        store = ingest(folder, out=scratch / "store", short_side=short_side, workers=1)
    seconds = time.perf_counter() - began
    return IngestRate(store.num_frames / seconds, store.manifest.num_bytes / store.num_frames)


def measure_index(scratch: Path, num_frames: int) -> IndexCost:
    """Write a store in two halves, merge them in a new process, and open the result in another."""
    halves = []
    for half in range(2):
        path = scratch / f"half{half}_{num_frames}"
        write_million(path, num_frames // FRAMES_EACH // 2, FRAMES_EACH, num_shards=100, name=f"made{half}")
        halves.append(path)
    out = scratch / f"joined_{num_frames}"
    program = (
        "import re, sys, time; from robossl.data.merge import merge\n"
        "began = time.perf_counter(); merge(sys.argv[2:], out=sys.argv[1])\n"
        "peak_kib = re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]\n"
        "print(time.perf_counter() - began, int(peak_kib) / 2**10)"
    )
    line = [sys.executable, "-c", program, str(out), *map(str, halves)]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    merge_seconds, merge_mib = map(float, said.split())
    began = time.perf_counter()
    store = open_store(out)
    open_seconds = time.perf_counter() - began
    num_bytes = sum(path.stat().st_size for path in (out / store.manifest.index).iterdir())
    return IndexCost(num_frames, num_bytes, merge_seconds, merge_mib, open_seconds)


def plan(
    rate: IngestRate, small: IndexCost, large: IndexCost, *, frames: int, machines: int, workers: int
) -> list[str]:
    """Return the lines of the plan, as a markdown table."""

    def grown(field: str) -> float:
        """Return a figure of the index at `frames`, on the line through both measured sizes."""
        low, high = getattr(small, field), getattr(large, field)
        slope = max(0.0, (high - low) / (large.num_frames - small.num_frames))  # of times too short to measure: 0
        return float(high + slope * (frames - large.num_frames))

    per_file = max(SHARD_FRAMES, frames // MAX_SHARDS)
    hours = frames / rate.frames_per_s / machines / workers / 3600
    rows = {
        "one process stores": f"{rate.frames_per_s:.0f} frames/s",
        f"{machines} machines with {workers} processes each": f"{hours:.1f} hours",
        "pictures": f"{frames * rate.bytes_per_frame / 2**40:.2f} TiB ({rate.bytes_per_frame / 2**10:.1f} KiB a frame)",
        "files of pictures": f"{frames // per_file:,} of {per_file:,} frames each",
        "index": f"{grown('num_bytes') / 2**30:.2f} GiB",
        "merge": f"{grown('merge_seconds') / 60:.0f} min, {grown('merge_mib') / 2**10:.1f} GiB of memory",
        "open": f"{1000 * grown('open_seconds'):.0f} ms",
    }
    return [f"| {frames:,} frames | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]


def main() -> None:
    """Measure, then print the plan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/droid_web"))
    parser.add_argument("--short-side", type=int, default=256)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--frames", type=int, default=100_000_000)
    parser.add_argument("--machines", type=int, default=16)
    parser.add_argument("--workers", type=int, default=16)
    args = parser.parse_args()
    if not args.data.exists():
        print(f"skipped: no videos at {args.data}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        rate = measure_ingest(args.data, Path(scratch), args.short_side, args.videos)
        small, large = (measure_index(Path(scratch), num_frames) for num_frames in SIZES)
    for cost in (small, large):
        print(
            f"{cost.num_frames:,} frames: index {cost.num_bytes / 2**20:.1f} MiB, merge {cost.merge_seconds:.1f} s and "
            f"{cost.merge_mib:.0f} MiB, open {1000 * cost.open_seconds:.1f} ms"
        )
    print(*plan(rate, small, large, frames=args.frames, machines=args.machines, workers=args.workers), sep="\n")


if __name__ == "__main__":
    main()
