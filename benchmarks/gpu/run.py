"""Measure everything that needs a GPU, in ten minutes: tests, exact resume, throughput, kNN, ONNX (`make gpu`).

    python benchmarks/gpu/run.py [--imagenette STORE] [--out runs/gpu] [PART ...]
    python benchmarks/gpu/run.py --dry          # without a GPU: tiny models, to try the script itself

Each part is a process with a time limit. It adds its figures to OUT/figures.jsonl as it goes; a part that fails or runs
over its time does not stop the next. At the end OUT/figures.md has all figures in a table. OUT is $OUT, or runs/gpu.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rows import add_row, markdown

HERE = Path(__file__).parent
# Seconds that each part may take on one GPU of the class of an H200; together less than ten minutes.
LIMITS = {"prepare": 40, "throughput": 100, "onnx": 150, "resume": 110, "tests": 70, "knn": 110}
# cuBLAS repeats its results bit by bit only with this setting, which it reads when it starts
# (https://docs.nvidia.com/cuda/cublas, "Results reproducibility").
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"}
# So that an unpacked tree will do, without an installation.
PLACES = [str(HERE.parents[1] / name) for name in ("", "envs", "serving")]


def run_part(name: str, out: Path, extra: list[str], *, seconds: float) -> None:
    """Run one part; write a row if it fails or runs over its time."""
    print(f"\n# {name}, at most {seconds:.0f} s", flush=True)
    argv = [sys.executable, str(HERE / "part.py"), name, "--out", str(out), "--seconds", str(seconds), *extra]
    path = os.pathsep.join([*PLACES, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**ENVIRONMENT, **os.environ, "PYTHONPATH": path}
    began = time.perf_counter()
    log = out / f"{name}.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(argv, stderr=errors, env=environment, start_new_session=True)
        try:
            code: int | None = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):  # the part and the runs that it started
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    taken = time.perf_counter() - began
    if code is None:
        add_row(out, name, "stopped", taken, "s", "over its time; the figures above this line are whole")
    elif code:
        words = log.read_text(errors="replace").strip().splitlines()
        add_row(out, name, "FAILED", taken, "s", f"{words[-1][:300] if words else 'no word'} ({log.name})")
    else:
        add_row(out, name, "done", taken, "s")


def main() -> None:
    """Run the parts that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(LIMITS), help=f"some of {', '.join(LIMITS)}")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "runs/gpu"))
    parser.add_argument("--imagenette", type=Path, default=Path("stores/imagenette"), help="a store made beforehand")
    parser.add_argument("--minutes", type=float, default=10.0, help="of all parts together; a dry run has 40")
    parser.add_argument("--dry", action="store_true", help="tiny models on the CPU")
    args = parser.parse_args()
    unknown = set(args.parts) - set(LIMITS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose from {', '.join(LIMITS)}")
    out = args.out.resolve()
    shutil.rmtree(out / "work", ignore_errors=True)
    for old in ("figures.jsonl", "figures.md"):
        (out / old).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    extra = ["--imagenette", str(args.imagenette.resolve()), *(["--dry"] if args.dry else [])]
    ends = time.perf_counter() + 60 * args.minutes * (4 if args.dry else 1)
    for name in ["prepare", *(name for name in args.parts if name != "prepare")]:
        left = ends - time.perf_counter()
        if left < 5:
            add_row(out, name, "skipped", None, note=f"the {args.minutes:g} minutes are over")
            continue
        # A machine for trials may be slow and busy.
        run_part(name, out, extra, seconds=min(LIMITS[name] * (4 if args.dry else 1), left))
    shutil.rmtree(out / "work", ignore_errors=True)  # what comes back from another machine must be small
    title = "A dry run with tiny models on the CPU: no figure says anything about a GPU.\n\n" if args.dry else ""
    table = title + markdown(out)
    (out / "figures.md").write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\nwrote {out / 'figures.md'}", flush=True)


if __name__ == "__main__":
    main()
