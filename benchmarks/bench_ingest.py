"""Measure the peak memory of an ingest, and the time and memory to open a store of a million frames.

Usage: python benchmarks/bench_ingest.py --data PATH/droid_web
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from robossl.data.index import IndexEntry, write_index
from robossl.data.manifest import Manifest, SourceEntry, write_manifest
from robossl.data.pictures import encode_jpeg
from robossl.data.shards import ShardWriter, UnitRecord
from robossl.data.store import open_store

OPEN = """
import sys, time
from pathlib import Path
from robossl.data.store import open_store
def resident_mib(): return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
before, start = resident_mib(), time.perf_counter()
store = open_store(Path(sys.argv[1]))
opened = time.perf_counter() - start
rows = store.rows("train")
for row in rows[::997]: store.jpeg(int(row))
store.time_seconds[rows], store.episode_of(rows[::997])
seconds, mib = time.perf_counter() - start, resident_mib() - before
print(f"{opened * 1e3:.0f} ms to open, {seconds:.2f} s with a split's rows and 1,000 random pictures (target 2 s); "
      f"{mib:.0f} MiB (target 200)")
"""


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants; shared pages count once per process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * 4096 + sum(resident_bytes(int(child)) for child in children)


def measure_ingest(data: Path, out: Path, short_side: int) -> None:
    """Ingest in a new process and print the peak memory."""
    code = "import sys; from robossl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "ingest", str(data), "--out", str(out), "--short-side", str(short_side)]
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    if process.returncode:
        sys.exit(process.returncode)
    store = open_store(out)
    print(
        f"ingest of {store.num_episodes} videos, {store.num_frames} frames: peak {peak / 2**30:.2f} GiB over all "
        f"processes (target 1.5), {store.num_frames / seconds:.0f} frames/s"
    )


def write_million(path: Path, num_episodes: int, frames_each: int, num_shards: int = 200, name: str = "made") -> None:
    """Write a store that repeats one tiny picture, such as a million times; `name` is that of its source."""
    (path / "shards").mkdir(parents=True)
    jpeg, per_shard = encode_jpeg(Image.new("RGB", (8, 8)), 50), num_episodes // num_shards
    entries: list[IndexEntry] = []
    for number in range(num_shards):
        records = []
        with ShardWriter(path / "shards", f"{name}{number}", {}) as shard:
            for episode in range(per_shard):
                for frame in range(frames_each):
                    shard.append(jpeg, frame / 30, (8, 8), episode, {})
                key = f"{number * per_shard + episode:07d}"
                records.append(UnitRecord(name, key, "", "", episode * frames_each, frames_each, hash=name + key))
            shard.finish(records)
        entries += [IndexEntry(record, f"{name}{number}", "train", {"scene": record.key[-1]}) for record in records]
    write_manifest(path, write_index(path, Manifest(8, 50, (SourceEntry(name, "", "mp4"),)), entries))


def main() -> None:
    """Print the ingest and both stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/droid_web"))
    parser.add_argument("--short-side", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if args.data.exists():
            measure_ingest(args.data, Path(scratch) / "store", args.short_side)
        else:
            print(f"skipped: no videos at {args.data}")
        for num_episodes, frames_each in ((10_000, 100), (1_000_000, 1)):
            path = Path(scratch) / f"million{frames_each}"
            write_million(path, num_episodes, frames_each)
            print(f"a million frames in {num_episodes} episodes: ", end="", flush=True)
            subprocess.run([sys.executable, "-c", OPEN, str(path)], check=True)


if __name__ == "__main__":
    main()
