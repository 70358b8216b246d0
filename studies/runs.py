"""Training runs and scores of a study: each run is a process with its own folder; killed runs resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from robossl.common.atomic_io import write_text
from robossl.common.config import to_yaml
from robossl.common.cpus import num_cpus
from robossl.training.run_config import RunConfig


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Merge `overrides` into a copy of `base`; nested mappings merge key by key."""
    out = dict(base)
    for key, value in overrides.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def train(config: RunConfig, folder: Path, *, threads: int) -> None:
    """Train in a new process unless the run is done; resume a run that was killed."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.yaml").write_text(to_yaml(config))
    run = folder / "run"
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    # All rows of a table must be computed alike, so no run may choose its precision by a measurement.
    fixed = ["--train.precision", "fp32"] if config.train.precision == "auto" else []
    line = [sys.executable, "-m", "robossl", "pretrain", str(folder / "cell.yaml"), "--out", str(run), *resume, *fixed]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"run {folder} failed: {done.stderr.strip().splitlines()[-1]}")
    (folder / "done").touch()


def train_all(jobs: dict[Path, Callable[[], RunConfig]], *, at_a_time: int) -> None:
    """Train the runs that are not done and print the time left; build a configuration only when its run starts."""
    todo = [folder for folder in jobs if not (folder / "done").exists()]
    for folder in jobs.keys() - todo:
        if (folder / "cell.yaml").read_text() != to_yaml(jobs[folder]()):
            raise SystemExit(f"{folder} was trained with another configuration; move it away to train it again")
    threads = max(1, num_cpus() // at_a_time)
    print(f"{len(jobs)} runs, {len(todo)} to do, {at_a_time} at a time", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(at_a_time) as pool:
        each = pool.map(lambda folder: train(jobs[folder](), folder, threads=threads), todo)
        for number, _ in enumerate(each, start=1):
            left = (time.monotonic() - began) / number * (len(todo) - number)
            print(f"{number}/{len(todo)} done, about {left / 60:.0f} minutes left", flush=True)


class ScoreFile:
    """Scores of a study by name, saved to a JSON file after every change.

    Args:
        path: The JSON file.
        about: The settings behind every score in it.

    Raises:
        SystemExit: The file holds scores of other settings.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        found = json.loads(path.read_text()) if path.exists() else {"about": self.about, "measured": {}}
        if found["about"] != self.about:
            raise SystemExit(f"{path} was measured with {found['about']}, not {self.about}; move it away to start over")
        self.measured: dict[str, dict[str, Any]] = found["measured"]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return the names without a score."""
        return [name for name in names if name not in self.measured]

    def __setitem__(self, name: str, scores: dict[str, Any]) -> None:
        self.measured[name] = scores
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.measured.items())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, f'{{"about": {json.dumps(self.about)},\n"measured": {{\n{lines}\n}}}}\n')

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.measured[name]


def history(run: Path, key: str) -> list[tuple[int, float]]:
    """Read one metric of a run as (step, value) pairs."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def small_recipe(method: str) -> Path:
    """Return the small recipe of a method: ResNet-18 on DROID, or ConvNeXt-Atto if the method refuses batch-norm."""
    paths = [Path("configs") / f"{method}_{rest}.yaml" for rest in ("resnet18_droid", "convnext_atto_imagenette")]
    return next(path for path in paths if path.exists())
