"""Train every method for a few steps; write the losses (`--out`) or compare them to the last bit (`--against`).

A change that must not change numbers shows equal losses before and after. `--robossl` names the command of another
environment, so that one script measures both versions:

    python benchmarks/losses.py --robossl OLD/.venv/bin/robossl --out before.json
    python benchmarks/losses.py --against before.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from robossl.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
# Distillation needs the weights of a teacher, which are not shipped.
WITHOUT_TEACHER = [name for name in METHODS if name != "distill"]
# Eight steps on the shipped clips; these values replace those of the recipe.
OVERRIDES = {
    "data.split": "train",
    "data.epoch_over": "frames",
    "train.steps": 8,
    "train.batch_size": 16,
    "train.log_every": 1,
    "train.health_every": 4,
    "train.device": "cpu",
    "train.precision": "fp32",
    "optim.warmup_steps": 2,
    "knn.label": "scene",
}


def recipe(method: str) -> Path:
    """Return a method's recipe of ResNet-18 on DROID, or its first recipe."""
    usual = ROOT / "configs" / f"{method}_resnet18_droid.yaml"
    return usual if usual.exists() else sorted((ROOT / "configs").glob(f"{method}_*.yaml"))[0]


def run(command: list[str]) -> None:
    """Run a command on one thread; exit with its last line if it fails."""
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}")


def losses(robossl: str, methods: list[str], work: Path) -> dict[str, list[float]]:
    """Return the loss of each step, by method."""
    run([robossl, "ingest", str(ROOT / "tests/data/droid"), "--out", str(work / "store"), "--short-side", "96"])
    found = {}
    for method in methods:
        out = work / method
        words = [str(word) for name, value in OVERRIDES.items() for word in (f"--{name}", value)]
        store = ["--data.store", str(work / "store")]
        run([robossl, "pretrain", str(recipe(method)), "--out", str(out), *store, *words])
        rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found[method] = [row["loss"] for row in rows if "loss" in row]
        print(f"{method:14} {found[method][0]:.6f} ... {found[method][-1]:.6f}", flush=True)
    return found


def main() -> None:
    """Measure, write and compare; exit with code 1 if a loss differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=WITHOUT_TEACHER, help="default: all but distill")
    parser.add_argument("--robossl", default=str(Path(sys.executable).with_name("robossl")))
    parser.add_argument("--out", type=Path, help="write the losses as JSON")
    parser.add_argument("--against", type=Path, help="compare with losses written before")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = losses(args.robossl, args.methods, Path(work))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")
    if args.against:
        before = json.loads(args.against.read_text())
        differ = [method for method, values in found.items() if values != before.get(method)]
        print(f"{len(found) - len(differ)} of {len(found)} methods equal to the last bit; differ: {differ or 'none'}")
        sys.exit(bool(differ))


if __name__ == "__main__":
    main()
