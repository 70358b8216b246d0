"""What a method is shown decides what its encoder ignores: `make invariances`; goes on where it was stopped.

    python benchmarks/invariances.py [--pose ../shared/data/scenes7_pose] [--at-a-time 2] [--out runs/invariances]

Trains the recipes of configs/ablations/invariances.yaml, probes each run on photographs that none has seen (and, with
`--pose`, on a moving camera's frames), and sets three published findings beside ours: SimCLR's table 3, LooC's
rotation gap, and Ericsson et al.'s ventral and dorsal encoders. A run that was probed is not probed again: remove its
folder under OUT/probed for that. Writes docs/invariances.md and docs/figures/invariances.png.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cells import history, merged, train_all
from scipy.stats import t as student

from robossl.config import from_mapping
from robossl.probes.document import read_report, write_report
from robossl.probes.frames import Frames
from robossl.probes.result import Readings
from robossl.probes.run import probe
from robossl.probes.settings import Settings
from robossl.probes.sources import open_frames
from robossl.probes.subjects import Probed, open_subject, pixels_reference, random_reference
from robossl.run import RunConfig

SPATIAL = ("rotation", "rot90", "translation", "scale", "crop", "hflip")
APPEARANCE = ("brightness", "contrast", "saturation", "hue", "white_balance", "blur")
LEVEL = 3  # the strength a profile judges by default; a flip has one
TURNS = Settings(n_reference=1000, n_evaluation=500, levels=(LEVEL,))
SETTINGS = replace(TURNS, mlp=False, decode_all=False)  # of all factors: turns alone are read back
POSE_SETTINGS = replace(SETTINGS, n_reference=415, n_evaluation=200)
COLOURS = {"moco": "#0072B2", "moco turned": "#D55E00", "looc": "#009E73", "ventral": "#E69F00", "dorsal": "#56B4E9"}


@dataclass(frozen=True, slots=True)
class Probing:
    """One encoder of one seed, as it was read."""

    readings: Readings
    turns: Readings
    pose: Readings | None

    def nis_w(self, factor: str) -> float:
        """Whitened invariance."""
        return number(next(c.figure.value for c in self.readings.cells if c.factor == factor and c.metric == "nis_w"))

    def turns_read(self, probe_name: str) -> float:
        """Quarter turns told from the view alone, %; chance is 25."""
        found = (d for d in self.turns.decodings if (d.factor, d.protocol, d.probe) == ("rot90", "abs", probe_name))
        return 100 * number(next(found).accuracy)

    @property
    def class_head(self) -> float:
        """Balanced accuracy above chance on whole clean frames, %."""
        return 100 * number(next(r.clean for r in self.readings.retentions if r.factor == "brightness"))

    @property
    def pose_head(self) -> float:
        """R2 of the camera's pose on clean frames."""
        assert self.pose is not None
        return number(next(r.clean for r in self.pose.retentions))


def number(value: float | None) -> float:
    """Null is not a number."""
    return float("nan") if value is None else value


def read(subject: Probed, frames: Frames, factors: tuple[str, ...], settings: Settings, kept: Path) -> Readings:
    """Probe, or read what was probed before."""
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        found = probe(
            subject,
            {},
            frames,
            profile=None,
            factors=factors,
            cache=kept.parents[1] / "cache",
            limit_bytes=int(4e9),
            settings=settings,
        )
        write_report(found.report, kept)
    return read_report(kept).readings


def spread(values: list[float], digits: int = 1) -> str:
    """Mean over seeds and its 95 % t interval."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return f"{mean:.{digits}f}"
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return f"{mean:.{digits}f} [{mean - half:.{digits}f}, {mean + half:.{digits}f}]"


def turns_table(found: dict[str, list[Probing]], kept: dict[str, list[float]]) -> list[str]:
    """Rows of SimCLR's and LooC's findings."""
    papers = {
        "simclr turned": "67.6 (table 3, h)",
        "simclr turned, g(h)": "25.6 (table 3, g(h))",
        "moco": "61.1 (table 1)",
        "moco turned": "43.3 (table 1)",
    }
    rows = [
        "| encoder | quarter turns read, linear % | MLP % | paper, % | `nis_w` of the turn "
        "| class head above chance, % | own turn nearest, % |",
        "|---|---|---|---|---|---|---|",
    ]
    order = ("random init", "pixels", "moco", "moco turned", "looc", "simclr turned", "simclr turned, g(h)")
    for name in (name for name in order if name in found):
        seeds = found[name]
        rows.append(
            f"| {name} | {spread([each.turns_read('linear') for each in seeds])} | "
            f"{spread([each.turns_read('mlp') for each in seeds])} | {papers.get(name, '')} | "
            f"{spread([each.nis_w('rot90') for each in seeds], 2)} | {spread([each.class_head for each in seeds])} | "
            f"{spread([100 * value for value in kept[name]]) if name in kept else ''} |"
        )
    return rows


def streams_table(found: dict[str, list[Probing]]) -> list[str]:
    """Rows of the ventral and dorsal encoders: whitened invariance by factor, then heads."""
    rows = ["| | ventral | dorsal | ventral - dorsal | seeds with that sign |", "|---|---|---|---|---|"]

    def row(name: str, value: Any, digits: int = 2) -> str:
        pairs = [[value(each) for each in found[stream]] for stream in ("ventral", "dorsal")]
        apart = list(np.subtract(*pairs))
        alike = max(sum(each > 0 for each in apart), sum(each < 0 for each in apart))
        cells = [spread(each, digits) for each in (*pairs, apart)]
        return f"| {name} | {' | '.join(cells)} | {alike} of {len(apart)} |"

    def mean_of(factors: tuple[str, ...]) -> Any:
        return lambda each: float(np.mean([each.nis_w(factor) for factor in factors]))

    for title, factors in (("spatial", SPATIAL), ("appearance", APPEARANCE)):
        rows.append(row(f"**{title}, mean**", mean_of(factors)))
        rows += [row(factor, lambda each, factor=factor: each.nis_w(factor)) for factor in factors]
    rows.append(row("class head above chance, %", lambda each: each.class_head, 1))
    if found["ventral"][0].pose:
        rows.append(row("head for a camera's pose, R2", lambda each: each.pose_head))
    return rows


def plot(found: dict[str, list[Probing]], out: Path) -> None:
    """Whitened invariance by factor for the two streams; how well quarter turns are read."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(3, 2))
    names = [*SPATIAL, *APPEARANCE]
    for stream, marker, shift in (("ventral", "o", -0.15), ("dorsal", "s", 0.15)):
        for row, factor in enumerate(names):
            values = [each.nis_w(factor) for each in found[stream]]
            place = [row + shift] * len(values)
            left.plot(values, place, marker, color=COLOURS[stream], markersize=5, label=stream if row == 0 else None)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.axhline(len(SPATIAL) - 0.5, color="grey", linewidth=0.8)
    left.set(
        xlabel="whitened invariance (1: ignored), a dot a seed",
        title="moved views (ventral), recoloured views (dorsal)",
    )
    left.legend(frameon=False, loc="lower left")
    shown = ("random init", "moco", "moco turned", "looc", "simclr turned", "simclr turned, g(h)")
    for row, name in enumerate(shown):
        values = [each.turns_read("mlp") for each in found[name]]
        right.barh(row, float(np.mean(values)), color=COLOURS.get(name, "#BBBBBB"), height=0.6)
        right.plot(values, [row] * len(values), "k.", markersize=5)
    right.axvline(25, color="grey", linewidth=0.8)
    right.text(25, len(shown) - 0.45, " chance", fontsize=8, color="grey", va="center")
    right.set_yticks(range(len(shown)), shown)
    right.invert_yaxis()
    right.set(xlabel="quarter turns read by an MLP, %", title="turned views, and LooC")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Train what is missing, probe what is not probed, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=Path, default=Path("configs/ablations/invariances.yaml"))
    parser.add_argument("--photographs", default="stores/imagenette")
    parser.add_argument("--pose", type=Path, help="a folder in the TUM RGB-D layout")
    parser.add_argument("--at-a-time", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/invariances"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    content = yaml.safe_load(args.recipes.read_text())
    recipes: dict[str, dict[str, Any]] = content["recipes"]
    runs = {
        (name, seed): args.out / f"{name.replace(' ', '_')}_seed{seed}"
        for name, recipe in recipes.items()
        for seed in range(recipe["seeds"])
    }

    def config(name: str, seed: int) -> RunConfig:
        own = {key: value for key, value in recipes[name].items() if key in ("method", "optim")}
        return from_mapping(merged(content["base"], own | {"seed": seed}), RunConfig)

    train_all({folder: partial(config, *key) for key, folder in runs.items()}, at_a_time=args.at_a_time)

    photographs = open_frames(args.photographs, split="val")
    kitchen = open_frames(str(args.pose)) if args.pose else None

    def probed(subject: Probed, name: str) -> Probing:
        kept = args.out / "probed" / name.replace(" ", "_")
        readings = read(subject, photographs, SPATIAL + APPEARANCE, SETTINGS, kept / "photographs.json")
        turns = read(subject, photographs, ("rot90",), TURNS, kept / "turns.json")
        pose = read(subject, kitchen, ("blur",), POSE_SETTINGS, kept / "pose.json") if kitchen else None
        return Probing(readings, turns, pose)

    found: dict[str, list[Probing]] = {}
    for (name, seed), folder in runs.items():
        subject = open_subject(str(folder / "run"), outputs=("pooled",))
        found.setdefault(name, []).append(probed(subject, f"{name} {seed}"))
        if recipes[name].get("projector"):
            head = open_subject(f"projector:{folder / 'run'}")
            found.setdefault(f"{name}, g(h)", []).append(probed(head, f"{name} projector {seed}"))
    any_run = open_subject(str(next(iter(runs.values())) / "run"), outputs=("pooled",))
    for seed in range(3):
        random = random_reference(any_run, seed=seed, outputs=("pooled",))
        found.setdefault("random init", []).append(probed(random, f"random {seed}"))
    found["pixels"] = [probed(pixels_reference(), "pixels")]
    kept = {
        name: [history(runs[key] / "run", "kept_turn")[-1][1] for key in runs if key[0] == name]
        for name in recipes
        if recipes[name]["method"]["name"] == "looc"
    }
    plot(found, args.docs / "figures" / "invariances.png")
    page = HEAD.format(steps=content["base"]["train"]["steps"], judged=SETTINGS.n_evaluation)
    lines = [page, *turns_table(found, kept), MIDDLE, *streams_table(found), ""]
    (args.docs / "invariances.md").write_text("\n".join(lines))
    print(f"wrote {args.docs / 'invariances.md'}")


HEAD = """# What a method is shown decides what its encoder ignores

Written by `make invariances`: ResNet-18 at 64 px, {steps} steps of 64 photographs of Imagenette, recipes in
`configs/ablations/invariances.yaml`; probed at strength 3 on {judged} photographs that none has seen. Means over
training seeds with 95 % t intervals. What the figures are is said in [probes.md](probes.md).

![invariance by factor, and quarter turns read](figures/invariances.png)

## Turned views: SimCLR's table 3 and LooC's gap
Chance is 25 %. `own turn nearest`: in LooC's space for rotation, how often the nearest key of a photograph is the one
that was turned alike (chance 33 %).
"""

MIDDLE = """
## Moved views and recoloured views
`nis_w` at strength 3: 1 where the encoder ignores the factor, 0 where it moves features as far as another photograph
does.
"""

if __name__ == "__main__":
    main()
