"""Train every method on the same robot video for the same time: `make table`; resumes after a kill.

    python studies/methods.py [--methods simclr dino ...] [--minutes 4] [--seeds 0 1] [--long-minutes 10] ...

The script first measures how many steps of a method fit into the minutes on this machine; all seeds of the method
train that many. A row is kept in studies/results/methods.json as soon as its seeds are measured. When every row is
there, the script writes docs/methods.md (except its section on the authors' code) and docs/figures/methods.png.

Stores: stores/droid, stores/imagenette, stores/g1. `--reference` adds the public encoder pip:efficientnet_lite0
(docs/starting_points.md), whose package must be installed.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from runs import merged, small_recipe, train_all

from robossl.common.config import from_mapping
from robossl.common.ranks import Ranks
from robossl.encoders.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.encoders.pip_weights import find_package
from robossl.evaluation.compare import Line, compare, read_lines, write_lines
from robossl.evaluation.forest import write_forest
from robossl.methods import METHODS
from robossl.training.build import build_trainer
from robossl.training.run_config import RunConfig

EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    # BYOL section 3.1: a fixed random target already teaches something.
    "byol fixed target": ("byol", {"method": {"target": "fixed"}}),
    # The random references have live branches too.
    "simclr live branches": ("simclr", {"encoder": {"zero_init_last": False}}),
    # The settings of a common re-implementation.
    "tcn margin 2": ("tcn", {"method": {"margin": 2.0, "length": 10.0, "mining": "none"}}),
}
# Distillation learns from a network that has seen labels, so it does not belong beside these methods.
COMPARED = [name for name in METHODS if name != "distill"]
PUBLIC = "pip:efficientnet_lite0"
REFERENCE = f"{PUBLIC}, supervised on ImageNet"
START = "resnet18 as training begins"  # last batch-norm of each branch at zero, unlike the random references
PLOTTED = (
    "droid scene val, knn",
    "droid object val, linear",
    "imagenette label val, knn",
    "imagenette label val, linear",
    "g1 state R2",
)
WARM_UP, TIMED = 3, 12  # steps
SHARE_OF_STEPS = 0.93  # the rest of the time goes to start-up, decoding and checks


def base_config(method: str, overrides: dict[str, Any]) -> RunConfig:
    """Load the small recipe with `overrides`, without logs, checkpoints and online kNN."""
    quiet = {"train": {"sinks": [], "checkpoint_every": 1_000_000, "log_every": 20}, "knn": None}
    return from_mapping(merged(yaml.safe_load(small_recipe(method).read_text()), quiet | overrides), RunConfig)


def with_steps(config: RunConfig, kept: Path, minutes: float) -> RunConfig:
    """Set the number of steps that fit into `minutes`; read the seconds per step from `kept` or measure them."""
    if not kept.exists():
        with tempfile.TemporaryDirectory() as scratch:
            trainer = build_trainer(config, Ranks.join("cpu"), Path(scratch), resume=False)
            seconds = []
            for step, raw in enumerate(trainer.loader.batches(start=0, stop=WARM_UP + TIMED)):
                began = time.perf_counter()
                trainer.step(step, trainer.augment(raw))
                seconds.append(time.perf_counter() - began)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(str(statistics.median(seconds[WARM_UP:])))
    steps = int(SHARE_OF_STEPS * 60 * minutes / float(kept.read_text()))
    warmup = min(config.optim.warmup_steps, steps // 10)
    return replace(
        config,
        optim=replace(config.optim, warmup_steps=warmup),
        train=replace(config.train, steps=steps, health_every=max(1, steps // 20)),
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One method for some minutes."""

    name: str
    minutes: float
    seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """Return its name in the table, without the number of steps."""
        return f"{self.name}, {self.minutes:g} min"

    def folder(self, seed: int) -> str:
        """Return the folder name of one seed."""
        return f"{self.name.replace(' ', '_')}_{self.minutes:g}min_seed{seed}"

    def config(self, out: Path, seed: int) -> RunConfig:
        """Build the configuration of one seed."""
        config = base_config(*EXTRA.get(self.name, (self.name, {})))
        return replace(with_steps(config, out / "rates" / self.name, self.minutes), seed=seed)


def pretrained(folder: Path) -> Path:
    """Save the public encoder, at the size of the stored frames, as an encoder folder."""
    if not folder.exists():
        package = find_package(PUBLIC)
        config = EncoderConfig(package.backbone, init=PUBLIC, input_hw=(128, 128), mean=package.mean, std=package.std)
        save_encoder(build_encoder(config), folder, extra={"method": "supervised (ImageNet)", "step": 0, "data": []})
    return folder


def untrained(folder: Path) -> Path:
    """Save the initial weights of most recipes as an encoder folder."""
    if not folder.exists():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig("resnet18", input_hw=(64, 64)))
        save_encoder(encoder, folder, extra={"method": "none", "step": 0, "data": []})
    return folder


def measure(models: tuple[Path, ...], out: Path, *, title: str) -> list[Line]:
    """Measure a row, named `title`, and its references."""
    found = out / "row.json"
    compare(
        tuple(map(str, models)),
        on=("stores/droid:scene,object,verb:val,test_lab", "stores/imagenette:label:val"),
        state=("stores/g1",),
        frames_per_episode=4,
        cache=out / "features",
        out=found,
    )
    lines = read_lines(found)
    assert sum(line.kind == "encoder" for line in lines) == 1, f"{title}: the runs differ in more than their seed"
    return [line._replace(name=title) if line.kind == "encoder" else line for line in lines]


def save_rows(path: Path, lines: list[Line]) -> None:
    """Add measured rows to the results; replace rows of the same method and minutes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(list((read_rows(path) | {without_steps(line.name): line for line in lines}).values()), path)


def read_rows(path: Path) -> dict[str, Line]:
    """Read the measured rows by method and minutes."""
    return {without_steps(line.name): line for line in read_lines(path)} if path.exists() else {}


def without_steps(title: str) -> str:
    """Return the method and minutes of a row; the number of steps depends on the machine."""
    return title.partition(" (")[0]


def write_page(results: Path, docs: Path, *, minutes: float) -> None:
    """Write the measured part of docs/methods.md and its figure."""
    rows = list(read_rows(results).values())
    table = write_lines(rows, results)
    write_forest(rows, docs / "figures" / "methods.png", columns=PLOTTED)
    page = docs / "methods.md"
    _, title, section = (page.read_text() if page.exists() else "").partition(BY_HAND)
    page.write_text(HEAD.format(minutes=minutes) + table + "\n" + (f"\n{title}{section}" if title else ""))


def main() -> None:
    """Train and measure the missing rows, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[*COMPARED, *EXTRA])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--long", nargs="*", default=["simclr", "dino", "cpc"])
    parser.add_argument("--long-minutes", type=float, default=10)
    parser.add_argument("--long-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-a-time", type=int, default=1, help="runs at the same time; the steps stay the same")
    parser.add_argument("--reference", action="store_true", help=f"measure {PUBLIC} too")
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--results", type=Path, default=Path("studies/results/methods.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    rows = [Row(name, args.minutes, tuple(args.seeds)) for name in args.methods]
    rows += [Row(name, args.long_minutes, tuple(args.long_seeds)) for name in args.long]
    given = {START: partial(untrained, args.out / "resnet18")}
    if args.reference:
        given[REFERENCE] = partial(pretrained, args.out / "tf_efficientnet_lite0")
    for title, make in given.items():
        if title not in read_rows(args.results):
            save_rows(args.results, measure((make(),), args.out, title=title))
    todo = [row for row in rows if row.title not in read_rows(args.results)]
    print(f"{len(rows) - len(todo)} rows are measured, {len(todo)} to do", flush=True)
    for number, row in enumerate(todo, start=1):
        steps = row.config(args.out, row.seeds[0]).train.steps  # measured here, on an idle machine
        print(f"row {number}/{len(todo)}: {row.title}, {steps} steps", flush=True)
        jobs = {args.out / row.folder(seed): partial(row.config, args.out, seed) for seed in row.seeds}
        train_all(jobs, at_a_time=args.at_a_time)
        title = f"{row.title} ({steps:,} steps, {len(row.seeds)} seeds)"
        save_rows(args.results, measure(tuple(folder / "run" for folder in jobs), args.out, title=title))
    every = {Row(name, args.minutes, ()).title for name in (*COMPARED, *EXTRA)}
    if missing := sorted(every - read_rows(args.results).keys()):
        print(f"{args.docs / 'methods.md'} is not written: no rows yet for {'; '.join(missing)}")
        return
    write_page(args.results, args.docs, minutes=args.minutes)
    print(f"wrote {args.docs / 'methods.md'}")


BY_HAND = "## What differs from the authors' code"  # the section of the page that people write
HEAD = """# Methods compared

Two tables: the scores of every method after the same time, and
**[what differs from its authors' code](#what-differs-from-the-authors-code)**. Which findings follow from the scores:
[results.md](results.md#every-method-for-the-same-time).

## The same time
Written by `make table`: ResNet-18 at 64 px on DROID web video (`configs/<method>_resnet18_*.yaml`), {minutes:g} minutes
on 2 cores per run; longer runs have rows of their own. Four frames of each episode are embedded. Do not compare these
scores with those of [droid.md](droid.md), which embeds eight. `--reference` adds the supervised row.

![five of the columns with their intervals](figures/methods.png)

"""

if __name__ == "__main__":
    main()
