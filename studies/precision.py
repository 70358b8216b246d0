"""Compare bf16 with fp32 for several methods: kNN on photographs during training, over seeds.

    python studies/precision.py [--methods simclr byol ...] [--seeds 0 1] [--at-a-time 1]

The small recipes with views of 32 px on Imagenette, 2,000 steps of 64. Resumes after a kill. It writes
docs/figures/precision.png and prints a table for docs/results.md: the mean over seeds, the spread of the seeds (largest
minus smallest) in fp32, and the difference of bf16.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from runs import history, small_recipe, train_all

from robossl.common.config import as_plain
from robossl.training.run_config import RunConfig, load_config

METHODS = ("simclr", "moco", "byol", "dino", "vicreg", "pixpro")
PRECISIONS = ("fp32", "bf16")
KNN = {"label": "label", "frames_per_episode": 1, "every": 250}


def config(method: str, precision: str, seed: int, steps: int) -> RunConfig:
    """Return the small recipe of a method on photographs, with views of 32 px (local views: 16 px)."""
    recipe = small_recipe(method)
    views = [name for name, value in as_plain(load_config(recipe))["method"].items() if isinstance(value, dict)]
    sizes = {f"method.{name}.size": 16 if "local" in name else 32 for name in views if "view" in name}
    changes = {
        "data.store": "stores/imagenette",
        "data.epoch_over": "frames",
        "data.frames_per_s": None,
        "encoder.input_hw": [32, 32],
        "train.steps": steps,
        "train.precision": precision,
        "train.threads": 1,
        "train.sinks": [],
        "train.checkpoint_every": 500,
        "train.health_every": 200,
        "train.log_every": 50,
        "knn": KNN,
        "seed": seed,
    }
    return load_config(recipe, changes=changes | sizes)


def main() -> None:
    """Train the runs that are missing, then draw the curves and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--at-a-time", type=int, default=1, help="runs at the same time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    folders = {
        (method, precision, seed): args.out / f"{method}_{precision}_seed{seed}"
        for seed in args.seeds
        for method in args.methods
        for precision in PRECISIONS
    }
    jobs: dict[Path, Callable[[], RunConfig]] = {
        folder: partial(config, *key, args.steps) for key, folder in folders.items()
    }
    train_all(jobs, at_a_time=args.at_a_time)
    curves = {key: history(folder / "run", "knn/label") for key, folder in folders.items()}
    draw(curves, args.methods, args.docs / "figures" / "precision.png")
    print(table(curves, args.methods, args.seeds))


def table(curves: dict[tuple[str, str, int], list[tuple[int, float]]], methods: list[str], seeds: list[int]) -> str:
    """Return the table in markdown: kNN at the end in %."""
    lines = ["| | fp32 | bf16 | bf16 minus fp32 | spread of the seeds in fp32 |", "|---|---|---|---|---|"]
    for method in methods:
        ends = {p: [100 * curves[method, p, seed][-1][1] for seed in seeds] for p in PRECISIONS}
        fp32, bf16 = (sum(ends[p]) / len(seeds) for p in PRECISIONS)
        spread = max(ends["fp32"]) - min(ends["fp32"])
        lines.append(f"| {method} | {fp32:.1f} | {bf16:.1f} | {bf16 - fp32:+.1f} | {spread:.1f} |")
    return "\n".join(lines)


def draw(curves: dict[tuple[str, str, int], list[tuple[int, float]]], methods: list[str], path: Path) -> None:
    """Draw a panel for each method: kNN over steps, a line for each precision and seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    panels = figure.subplots(2, -(-len(methods) // 2), sharex=True, squeeze=False).flat
    for panel, method in zip(panels, methods, strict=False):
        for (name, precision, seed), points in curves.items():
            if name == method:
                steps, values = zip(*points, strict=True)
                colour, label = f"C{PRECISIONS.index(precision)}", precision if seed == 0 else None
                panel.plot(steps, [100 * value for value in values], color=colour, label=label)
        panel.set(title=method, xlabel="step", ylabel="kNN, %")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
