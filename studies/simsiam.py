"""Repeat SimSiam's ablation tables on real robot frames: `make tables`; resumes after a kill.

    python studies/simsiam.py [--cells configs/ablations/simsiam.yaml] [--seeds 0 1] [--jobs 2] [--out runs/tables]

Every cell is trained once per seed, on one thread per job. Cells with the same configuration share one run (the base
is in every table). Writes docs/simsiam_tables.md and docs/figures/simsiam_stop_gradient.png.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from runs import history, merged, train_all

from robossl.common.config import config_hash, from_mapping
from robossl.data.store import open_store
from robossl.training.run_config import RunConfig

METRIC = "knn/scene"


@dataclass(frozen=True, slots=True)
class Cell:
    """One configuration of one table."""

    table: str
    name: str
    paper: float | None
    overrides: dict[str, Any]


def read_cells(path: Path) -> tuple[dict[str, Any], list[Cell]]:
    """Read the base and the cells of a file of `configs/ablations/`."""
    content = yaml.safe_load(path.read_text())
    cells = [
        Cell(table, name, about["paper"].get(name), overrides)
        for table, about in content["tables"].items()
        for name, overrides in about["cells"].items()
    ]
    return content["base"], cells


def config_of(base: dict[str, Any], cell: Cell, seed: int) -> RunConfig:
    """Build the run of a cell, with four online kNN evaluations."""
    mapping = merged(base, cell.overrides)
    mapping["knn"] = mapping["knn"] | {"every": mapping["train"]["steps"] // 4}
    if mapping["method"].get("predictor") == "moving_average":
        mapping["method"] = mapping["method"] | {"bank_size": open_store(Path(mapping["data"]["store"])).num_frames}
    return from_mapping(mapping | {"seed": seed}, RunConfig)


def table_text(table: str, cells: list[Cell], folders: dict[tuple[str, str], list[Path]]) -> str:
    """Write one table as markdown, followed by our order and the paper's."""
    rows, ours, paper = [], {}, {}
    for cell in cells:
        runs = folders[cell.table, cell.name]
        scores = [100 * history(run / "run", METRIC)[-1][1] for run in runs]
        std = statistics.mean(history(run / "run", "health/std")[-1][1] for run in runs)
        reference = history(runs[0] / "run", "health/std_reference")[-1][1]
        loss = statistics.mean(history(run / "run", "loss")[-1][1] for run in runs)
        ours[cell.name] = statistics.mean(scores)
        if cell.paper is not None:
            paper[cell.name] = cell.paper
        each = ", ".join(f"{score:.1f}" for score in scores)
        rows.append(
            f"| {cell.name} | {statistics.mean(scores):.1f} ({each}) | {std / reference:.2f} | {loss:.3f} "
            f"| {'unstable' if cell.paper is None else cell.paper} |"
        )
    shared = [name for name in ours if name in paper]
    order = " > ".join(sorted(shared, key=lambda name: -ours[name]))
    wanted = " > ".join(sorted(shared, key=lambda name: -paper[name]))
    return "\n".join(
        [
            f"### {table}",
            "",
            "| cell | kNN scene, balanced % (each seed) | output std x sqrt(d) | loss | paper, linear top-1 % |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"Ours: {order}. Paper: {wanted}.",
            "",
        ]
    )


def plot_stop_gradient(folders: dict[tuple[str, str], list[Path]], out: Path) -> None:
    """Plot loss, output std and kNN over steps with and without stop-gradient, as in figure 2 of the paper."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for name, colour, style in (("with", "#0072B2", "-"), ("without", "#D55E00", "--")):
        for i, run in enumerate(folders["stop-gradient", name]):
            for axis, key in zip(axes, ("loss", "health/std", METRIC), strict=True):
                steps, values = zip(*history(run / "run", key), strict=True)
                axis.plot(steps, values, style, color=colour, label=f"{name} stop-gradient" if i == 0 else None)
    reference = history(folders["stop-gradient", "with"][0] / "run", "health/std_reference")[-1][1]
    axes[1].axhline(reference, color="grey", linewidth=0.8)
    axes[1].text(axes[1].get_xlim()[1], reference, "1/sqrt(d) ", ha="right", va="top", color="grey", fontsize=8)
    for axis, title in zip(
        axes, ("loss", "std of the l2-normalised output", "kNN scene, balanced accuracy"), strict=True
    ):
        axis.set(title=title, xlabel="step")
    axes[0].legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


def main() -> None:
    """Train the missing runs, then write the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, default=Path("configs/ablations/simsiam.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    args = parser.parse_args()
    base, cells = read_cells(args.cells)
    configs = {(c.table, c.name, seed): config_of(base, c, seed) for seed in args.seeds for c in cells}
    folder_of = {key: args.out / config_hash(config)[:16] for key, config in configs.items()}
    jobs = {folder: configs[key] for key, folder in folder_of.items()}
    train_all({folder: partial(lambda config: config, config) for folder, config in jobs.items()}, at_a_time=args.jobs)
    folders = {(c.table, c.name): [folder_of[c.table, c.name, seed] for seed in args.seeds] for c in cells}
    tables = dict.fromkeys(cell.table for cell in cells)
    text = "\n".join(table_text(table, [c for c in cells if c.table == table], folders) for table in tables)
    (args.docs / "simsiam_tables.md").write_text(
        HEAD.format(seeds=len(args.seeds), steps=base["train"]["steps"]) + text
    )
    plot_stop_gradient(folders, args.docs / "figures" / "simsiam_stop_gradient.png")
    print(f"wrote {args.docs / 'simsiam_tables.md'}")


HEAD = """# SimSiam's ablation tables

Written by `make tables`: {seeds} seeds per cell, {steps} steps of 64 in the base, DROID web frames. Our score is the
weighted kNN accuracy of the label `scene` on `val` at the last step. The paper's is ImageNet linear top-1 after 100
epochs, so compare only the order. [results.md](results.md#simsiams-ablations) says what follows.

![loss, output std and kNN over steps](figures/simsiam_stop_gradient.png)

"""

if __name__ == "__main__":
    main()
