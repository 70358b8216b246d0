"""Show that the views of a method decide which changes its encoder ignores: `make invariances`; resumes after a kill.

    python studies/invariances.py [--pose ../shared/data/scenes7_pose] [--at-a-time 2] [--out runs/invariances]

Trains the recipes of configs/ablations/invariances.yaml and probes each run on new photographs (with `--pose`, also on
frames of a moving camera). Compares three published findings with ours: SimCLR's table 3, LooC's rotation gap, and
the ventral and dorsal encoders of Ericsson et al. Scores are kept in studies/results/invariances.json; a run with
scores is neither trained nor probed again. When every run has scores, the script writes docs/invariances.md and
docs/figures/invariances.png.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from quarter_turns import N_JUDGED, N_REFERENCE, quarter_turn_accuracy
from runs import ScoreFile, history, merged, train_all
from scipy.stats import t as student

from robossl.common.config import from_mapping
from robossl.measure.subjects import Subject, open_subject, pixels_reference, random_reference
from robossl.probes.frames import ProbeFrames
from robossl.probes.prepare import prepare
from robossl.probes.result import Readings
from robossl.probes.run import probe
from robossl.probes.settings import ProbeSettings
from robossl.probes.sources import open_frames
from robossl.training.run_config import RunConfig

SPATIAL = ("rotation", "rot90", "translation", "scale", "crop", "hflip")
APPEARANCE = ("brightness", "contrast", "saturation", "hue", "white_balance", "blur")
TURNED = (
    "random init",
    "pixels",
    "moco",
    "moco turned",
    "looc",
    "looc with colours",
    "moco, longer",
    "moco turned, longer",
    "looc, longer",
    "simclr turned",
    "simclr turned, g(h)",
    "simclr turned, longer",
    "simclr turned, longer, g(h)",
)
LEVEL = 3  # the strength that profiles judge by default; flips have only one
SETTINGS = ProbeSettings(n_reference=1000, n_evaluation=500, levels=(LEVEL,), mlp=False, decode_all=False)
POSE_SETTINGS = replace(SETTINGS, n_reference=415, n_evaluation=200)
COLOURS = {"moco": "#0072B2", "moco turned": "#D55E00", "looc": "#009E73", "ventral": "#E69F00", "dorsal": "#56B4E9"}


@dataclass(frozen=True, slots=True)
class EncoderScores:
    """Scores of one encoder of one seed; nan if a score is undefined."""

    nis_w: dict[str, float]  # whitened invariance by factor
    turns: dict[str, float]  # accuracy of quarter turns by head, %; chance is 25
    class_head: float  # balanced accuracy above chance on clean frames, %
    pose_head: float | None  # R2 of the camera's pose on clean frames
    kept_turn: float | None = None  # accuracy in LooC's space for rotation, %


def measure(subject: Subject, photographs: ProbeFrames, kitchen: ProbeFrames | None, *, out: Path) -> EncoderScores:
    """Probe one encoder on photographs and, if given, on frames of a moving camera."""

    def readings(frames: ProbeFrames, factors: tuple[str, ...], settings: ProbeSettings) -> Readings:
        cache = out / "cache"
        prepared = prepare(frames, profile=None, factors=factors, cache=cache, settings=settings)
        return probe(subject, {}, prepared, cache=cache, limit_bytes=int(20e9)).report.readings

    seen = readings(photographs, SPATIAL + APPEARANCE, SETTINGS)
    pose = readings(kitchen, ("blur",), POSE_SETTINGS) if kitchen else None
    return EncoderScores(
        nis_w={cell.factor: number(cell.figure.value) for cell in seen.cells if cell.metric == "nis_w"},
        turns=quarter_turn_accuracy(subject, photographs),
        class_head=100 * number(next(kept.clean for kept in seen.retentions if kept.factor == "brightness")),
        pose_head=number(next(kept.clean for kept in pose.retentions)) if pose else None,
    )


def number(value: float | None) -> float:
    """Return nan instead of None."""
    return float("nan") if value is None else value


def spread(values: list[float], digits: int = 1) -> str:
    """Write the mean over seeds with its 95 % t interval."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return f"{mean:z.{digits}f}"
    half = float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return f"{mean:z.{digits}f} [{mean - half:z.{digits}f}, {mean + half:z.{digits}f}]"


def turns_table(found: dict[str, list[EncoderScores]]) -> list[str]:
    """Write the table of SimCLR's and LooC's findings."""
    papers = {
        "simclr turned": "67.6 (table 3, h)",
        "simclr turned, g(h)": "25.6 (table 3, g(h))",
        "simclr turned, longer": "67.6 (table 3, h)",
        "simclr turned, longer, g(h)": "25.6 (table 3, g(h))",
        "moco": "61.1 (table 1)",
        "moco turned": "43.3 (table 1)",
        "moco, longer": "61.1 (table 1)",
        "moco turned, longer": "43.3 (table 1)",
    }
    rows = [
        "| encoder | quarter turns read, linear % | MLP % | paper, % | `nis_w` of the turn "
        "| class head above chance, % | own turn nearest, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in TURNED:
        seeds = found[name]
        rows.append(
            f"| {name} | {spread([each.turns['linear'] for each in seeds])} | "
            f"{spread([each.turns['mlp'] for each in seeds])} | {papers.get(name, '')} | "
            f"{spread([each.nis_w['rot90'] for each in seeds], 2)} | {spread([each.class_head for each in seeds])} | "
            f"{spread(own) if (own := [each.kept_turn for each in seeds if each.kept_turn is not None]) else ''} |"
        )
    return rows


def streams_table(found: dict[str, list[EncoderScores]]) -> list[str]:
    """Write the table of ventral and dorsal encoders: whitened invariance by factor, then heads."""
    rows = ["| | ventral | dorsal | ventral - dorsal | seeds with that sign |", "|---|---|---|---|---|"]

    def row(name: str, value: Any, digits: int = 2) -> str:
        pairs = [[value(each) for each in found[stream]] for stream in ("ventral", "dorsal")]
        apart = list(np.subtract(*pairs))
        alike = max(sum(each > 0 for each in apart), sum(each < 0 for each in apart))
        cells = [spread(each, digits) for each in (*pairs, apart)]
        return f"| {name} | {' | '.join(cells)} | {alike} of {len(apart)} |"

    def mean_of(factors: tuple[str, ...]) -> Any:
        return lambda each: float(np.mean([each.nis_w[factor] for factor in factors]))

    for title, factors in (("spatial", SPATIAL), ("appearance", APPEARANCE)):
        rows.append(row(f"**{title}, mean**", mean_of(factors)))
        rows += [row(factor, lambda each, factor=factor: each.nis_w[factor]) for factor in factors]
    rows.append(row("class head above chance, %", lambda each: each.class_head, 1))
    if found["ventral"][0].pose_head is not None:
        rows.append(row("head for a camera's pose, R2", lambda each: each.pose_head))
    return rows


def plot(found: dict[str, list[EncoderScores]], out: Path) -> None:
    """Plot whitened invariance by factor for both streams, and the accuracy of quarter turns."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", width_ratios=(3, 2))
    names = [*SPATIAL, *APPEARANCE]
    for stream, marker, shift in (("ventral", "o", -0.15), ("dorsal", "s", 0.15)):
        for row, factor in enumerate(names):
            values = [each.nis_w[factor] for each in found[stream]]
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
    shown = [name for name in TURNED if name != "pixels"]
    for row, name in enumerate(shown):
        values = [each.turns["mlp"] for each in found[name]]
        right.barh(row, float(np.mean(values)), color=COLOURS.get(name.partition(",")[0], "#BBBBBB"), height=0.6)
        right.plot(values, [row] * len(values), "k.", markersize=5)
    right.axvline(25, color="grey", linewidth=0.8)
    right.text(25, len(shown) - 0.45, " chance", fontsize=8, color="grey", va="center")
    right.set_yticks(range(len(shown)), shown)
    right.invert_yaxis()
    right.set(xlabel="quarter turns read by an MLP, %", title="turned views, and LooC")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Train and probe the missing runs, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", type=Path, default=Path("configs/ablations/invariances.yaml"))
    parser.add_argument("--photographs", default="stores/imagenette")
    parser.add_argument("--pose", type=Path, help="a folder in the TUM RGB-D layout")
    parser.add_argument("--at-a-time", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/invariances"))
    parser.add_argument("--results", type=Path, default=Path("studies/results/invariances.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    content = yaml.safe_load(args.recipes.read_text())
    recipes: dict[str, dict[str, Any]] = content["recipes"]
    runs = {
        (name, seed): args.out / f"{name.replace(' ', '_')}_seed{seed}"
        for name, recipe in recipes.items()
        for seed in range(recipe["seeds"])
    }

    def own(name: str) -> dict[str, Any]:
        return {key: recipes[name][key] for key in ("method", "train") if key in recipes[name]}

    def config(name: str, seed: int) -> RunConfig:
        return from_mapping(merged(content["base"], own(name) | {"seed": seed}), RunConfig)

    photographs = open_frames(args.photographs, split="val")
    kitchen = open_frames(str(args.pose)) if args.pose else None
    about = {"pose": bool(kitchen), "base": content["base"], "turns": [N_REFERENCE, N_JUDGED]}
    scores = ScoreFile(args.results, about)
    measured = partial(measure, photographs=photographs, kitchen=kitchen, out=args.out)

    def is_done(name: str, seed: int) -> bool:
        kept = scores.measured.get(f"{name} {seed}", {})
        return {key: value for key, value in kept.items() if key != "read"} == own(name)

    todo = [key for key in runs if not is_done(*key)]
    for first in range(0, len(todo), args.at_a_time):
        some = todo[first : first + args.at_a_time]
        print(f"{len(todo) - first} of {len(runs)} runs to do", flush=True)
        train_all({runs[key]: partial(config, *key) for key in some}, at_a_time=args.at_a_time)
        for name, seed in some:
            run = runs[name, seed] / "run"
            if recipes[name].get("projector"):
                scores[f"{name}, g(h) {seed}"] = {"read": asdict(measured(open_subject(f"projector:{run}")))}
            figures = measured(open_subject(str(run), outputs=("pooled",)))
            if nearest := [100 * value for _, value in history(run, "kept_turn")[-5:]]:
                figures = replace(figures, kept_turn=float(np.mean(nearest)))
            scores[f"{name} {seed}"] = own(name) | {"read": asdict(figures)}
            measure_references(run, scores, measured)
    steps = {"steps": content["base"]["train"]["steps"], "long_steps": content["long"]["steps"]}
    write_page(scores, args.docs, steps)
    print(f"wrote {args.docs / 'invariances.md'}")


def measure_references(run: Path, scores: ScoreFile, measured: Callable[[Subject], EncoderScores]) -> None:
    """Measure random weights of the run's backbone and pooled pixels, once for all runs."""
    for name in scores.missing([*(f"random init {seed}" for seed in range(3)), "pixels 0"]):
        kind, _, seed = name.rpartition(" ")
        any_run = open_subject(str(run), outputs=("pooled",))
        random = random_reference(any_run, seed=int(seed), outputs=("pooled",))
        scores[name] = {"read": asdict(measured(pixels_reference() if kind == "pixels" else random))}


def write_page(scores: ScoreFile, docs: Path, steps: dict[str, int]) -> None:
    """Write docs/invariances.md and its figure."""
    found: dict[str, list[EncoderScores]] = {}
    for key, figures in sorted(scores.measured.items()):
        found.setdefault(key.rpartition(" ")[0], []).append(EncoderScores(**figures["read"]))
    plot(found, docs / "figures" / "invariances.png")
    page = HEAD.format(**steps, judged=SETTINGS.n_evaluation, turned=N_JUDGED)
    lines = [page, *turns_table(found), MIDDLE, *streams_table(found), ""]
    (docs / "invariances.md").write_text("\n".join(lines))


HEAD = """# Training views decide which changes an encoder ignores

Written by `make invariances`: ResNet-18 at 64 px, {steps} steps of 64 photographs of Imagenette ({long_steps:,} steps
in bf16 in the rows named "longer"). The recipes are in `configs/ablations/invariances.yaml`. The encoders are probed
at strength 3 on {judged} new pictures, and quarter turns on {turned:,} pictures in all four turns. Scores are means
over training seeds with 95 % t intervals. [probes.md](probes.md#the-scores) defines them;
[probe_results.md](probe_results.md#training-views-decide-which-changes-an-encoder-ignores) says what follows.

![invariance by factor, and quarter turns read](figures/invariances.png)

## Turned views: SimCLR's table 3 and LooC's gap
Chance is 25 %. `own turn nearest`: how often, in LooC's space for rotation, the nearest key of a photograph is the one
with the same turn; mean of five checks within the last 100 steps (chance 50 %; 33 % with colours).
"""

MIDDLE = """
## Moved views and recoloured views
`nis_w` at strength 3: 1 if the encoder ignores the factor, 0 if the factor moves the features as far as another
photograph does.
"""

if __name__ == "__main__":
    main()
