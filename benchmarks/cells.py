"""Runs of a table: each trained in a process of its own, kept in a folder, gone on with after a kill."""

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

from robossl.config import to_yaml
from robossl.cpus import num_cpus
from robossl.durable import write_text
from robossl.run import RunConfig


def merged(base: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """`overrides` laid over `base`, mapping by mapping."""
    out = dict(base)
    for key, value in overrides.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def train(config: RunConfig, folder: Path, *, threads: int) -> None:
    """Train in a process of its own unless it is done; a run that was killed is resumed."""
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cell.yaml").write_text(to_yaml(config))
    run = folder / "run"
    resume = ["--resume"] if (run / "config.yaml").exists() else []
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    line = [sys.executable, "-m", "robossl", "pretrain", str(folder / "cell.yaml"), "--out", str(run), *resume]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"cell {folder} failed: {done.stderr.strip().splitlines()[-1]}")
    (folder / "done").touch()


def train_all(jobs: dict[Path, Callable[[], RunConfig]], *, at_a_time: int) -> None:
    """Train what is missing, with an estimate of what is left; a configuration is made when its turn comes."""
    todo = [folder for folder in jobs if not (folder / "done").exists()]
    for folder in jobs.keys() - todo:
        if (folder / "cell.yaml").read_text() != to_yaml(jobs[folder]()):
            raise SystemExit(f"{folder} was trained by another configuration; move it away to train it anew")
    threads = max(1, num_cpus() // at_a_time)
    print(f"{len(jobs)} runs, {len(todo)} to do, {at_a_time} at a time", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(at_a_time) as pool:
        each = pool.map(lambda folder: train(jobs[folder](), folder, threads=threads), todo)
        for number, _ in enumerate(each, start=1):
            left = (time.monotonic() - began) / number * (len(todo) - number)
            print(f"{number}/{len(todo)} done, about {left / 60:.0f} minutes left", flush=True)


class Ledger:
    """What was measured, kept in a file under docs/ at once: the runs may be gone tomorrow, the figures are not.

    Args:
        path: The JSON file.
        about: What every figure in it was measured with.

    Raises:
        SystemExit: figures that were measured with something else lie there.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, json.loads(json.dumps(about))
        found = json.loads(path.read_text()) if path.exists() else {"about": self.about, "measured": {}}
        if found["about"] != self.about:
            raise SystemExit(f"{path} was measured with {found['about']}, not {self.about}; move it away to begin anew")
        self.measured: dict[str, dict[str, Any]] = found["measured"]

    def missing(self, names: Iterable[str]) -> list[str]:
        """Which are not measured yet."""
        return [name for name in names if name not in self.measured]

    def __setitem__(self, name: str, figures: dict[str, Any]) -> None:
        self.measured[name] = figures
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in self.measured.items())
        write_text(self.path, f'{{"about": {json.dumps(self.about)},\n"measured": {{\n{lines}\n}}}}\n')

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self.measured[name]


def history(run: Path, key: str) -> list[tuple[int, float]]:
    """(step, value) of one metric of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[key]) for line in lines if key in line]


def small_recipe(method: str) -> Path:
    """A method's small recipe in configs/: ResNet-18 on DROID, or else what its own rules allow."""
    paths = [Path("configs") / f"{method}_{rest}.yaml" for rest in ("resnet18_droid", "convnext_atto_imagenette")]
    return next(path for path in paths if path.exists())
