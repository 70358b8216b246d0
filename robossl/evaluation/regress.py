"""`robossl regress`: predict a state column from features, and compare with random weights and pooled pixels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robossl.common.atomic_io import check_out, write_text
from robossl.errors import InputError
from robossl.evaluation.table import interval_cell, markdown_line, print_table

if TYPE_CHECKING:
    from rich.console import Console

    from robossl.evaluation.state import StateResult

SCHEMA = "robossl.state/1"


def regress(
    models: tuple[str, ...],
    *,
    store: Path,
    against: tuple[str, ...] = (),
    column: str = "state",
    dims: tuple[int, ...] = (),
    split: str | None = None,
    folds: int = 5,
    frames_per_episode: int = 60,
    min_std: float = 0.05,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: Path | None = None,
    out: Path | None = None,
    markdown: bool = False,
) -> None:
    """Measure how well ridge regression predicts a robot's state from the features of single frames.

    Args:
        models: Run folders, encoder folders, exported models, other ONNX files, grpc://HOST:PORT/MODEL, timm:NAME
            or pip:NAME.
        store: Store whose episodes have the column.
        against: More encoders, with which each encoder is compared, such as the public one that it was adapted from.
        column: Per-frame column to predict, such as state or action.
        dims: Dimensions of the column to predict. Default: all.
        split: Use only the episodes of this split. Default: all episodes.
        folds: Number of folds. Each episode is predicted by a fit on the episodes of the other folds.
        frames_per_episode: Number of frames to use of each episode, evenly spaced.
        min_std: Leave out dimensions whose standard deviation is smaller (in the column's unit, such as rad or m).
        bootstrap: Number of bootstrap resamples of the episodes, which give the confidence intervals.
        random_seeds: Number of random initialisations that the baseline with random weights averages over.
        seed: Seed of random initialisations, folds and resamples.
        output: Features to use: pooled, or cls for the class token of a ViT, which DINO and MoCo v3 train and evaluate.
        cache: Folder that keeps features. Default: RUN/features of the first run folder.
        out: JSON file to write with all numbers.
        markdown: Print markdown even on a terminal. Output to a file or a pipe is always markdown.
    """
    from rich.console import Console

    from robossl.common.progress import Progress
    from robossl.data.store import open_store
    from robossl.evaluation.state import StateSettings, run_state

    if not models:
        raise InputError("nothing to probe; name a run folder, an encoder folder or an exported model")
    settings = StateSettings(
        column, split, folds, frames_per_episode, min_std, bootstrap, random_seeds, seed, dims, output
    )
    check_out(out)
    runs = [Path(model) for model in models if (Path(model) / "encoder").is_dir()]
    cache = cache or (runs[0] / "features" if runs else None)
    with Progress(stderr=True) as progress:
        result = run_state(models, open_store(store), settings, against=against, cache=cache, watch=progress.advance)
    if out:
        write_text(out, json.dumps({"schema": SCHEMA, "store": store.name, **asdict(result)}, indent=1) + "\n")
    console = Console()
    if markdown or not console.is_terminal:
        print(to_markdown(result))
    else:
        print_result(result, console)


LEGEND = (
    "Ridge regression on single frames of held-out episodes; mean R2 over dimensions, 95 % intervals over "
    "episodes; differences are paired, * marks an interval that excludes zero."
)


def to_markdown(result: StateResult) -> str:
    """Return the table as markdown, with heading and legend."""
    titles, *rows = _cells(result)
    lines = map(markdown_line, [titles, ["---"] * len(titles), *rows])
    return "\n".join([_heading(result), "", *lines, "", LEGEND])


def print_result(result: StateResult, console: Console) -> None:
    """Print the table on a terminal."""
    from rich.markup import escape

    titles, *rows = _cells(result)
    styles = ["bold" if row.kind == "encoder" else "" for row in result.rows]
    marked = [(map(escape, cells), style) for cells, style in zip(rows, styles, strict=True)]
    print_table(console, titles, marked, title=_heading(result))
    console.print(escape(LEGEND), style="dim")


def _heading(result: StateResult) -> str:
    about = result.settings
    left_out = f"; left out {result.num_without} episodes without this column" if result.num_without else ""
    return (
        f"{about.column}: {result.num_dims} dimensions that move, {result.num_episodes} episodes in {about.folds} folds"
        f"{left_out}"
    )


def _cells(result: StateResult) -> list[list[str]]:
    """Return the table as text: first the titles of the columns, then the cells of each row."""
    references = list(dict.fromkeys(name for row in result.rows for name in row.minus))
    rows = [
        [row.name, interval_cell(row.r2), *(interval_cell(row.minus.get(name), sign=True) for name in references)]
        for row in result.rows
    ]
    return [["", "R2", *(f"minus {name}" for name in references)], *rows]
