"""`robossl temporal`: whether features are in the order of time, beside random weights and pooled pixels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from robossl.common.atomic_io import check_out, write_text
from robossl.errors import InputError
from robossl.evaluation.table import interval_cell, markdown_line, print_table

if TYPE_CHECKING:
    from robossl.evaluation.temporal_probe import TemporalResult

SCHEMA = "robossl.temporal/1"
LEGEND = (
    "Kendall's tau with time (1: in its order, 0: in none); progress: of the distance to the last frame; "
    "alignment: of the nearest frame in other episodes with the same label. 95 % intervals over episodes; differences "
    "are paired, * marks an interval that excludes zero."
)


def temporal(
    models: tuple[str, ...],
    *,
    store: Path,
    against: tuple[str, ...] = (),
    label: str | None = None,
    split: str | None = None,
    frames_per_episode: int = 32,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: Path | None = None,
    out: Path | None = None,
    markdown: bool = False,
) -> None:
    """Measure whether the features of an episode are in the order of time, and whether episodes can be aligned.

    Args:
        models: Run folders, encoder folders, exported models, other ONNX files, grpc://HOST:PORT/MODEL, timm:NAME
            or pip:NAME.
        store: Store of episodes, best of demonstrations that end at their goal.
        against: More encoders, with which each encoder is compared, such as the public one that it was adapted from.
        label: Align episodes that have the same value of this label, such as verb. Default: do not align.
        split: Use only the episodes of this split. Default: all episodes.
        frames_per_episode: Number of frames to use of each episode, evenly spaced.
        bootstrap: Number of bootstrap resamples of the episodes, which give the confidence intervals.
        random_seeds: Number of random initialisations that the baseline with random weights averages over.
        seed: Seed of random initialisations, of partners to align with, and of resamples.
        output: Features to use: pooled, or cls for the class token of a ViT.
        cache: Folder that keeps features. Default: RUN/features of the first run folder.
        out: JSON file to write with all numbers.
        markdown: Print markdown even on a terminal. Output to a file or a pipe is always markdown.
    """
    from rich.console import Console
    from rich.markup import escape

    from robossl.common.progress import Progress
    from robossl.data.store import open_store
    from robossl.evaluation.temporal_probe import TemporalSettings, run_temporal

    if not models:
        raise InputError("nothing to probe; name a run folder, an encoder folder or an exported model")
    settings = TemporalSettings(split, label, frames_per_episode, bootstrap, random_seeds, seed, output)
    check_out(out)
    runs = [Path(model) for model in models if (Path(model) / "encoder").is_dir()]
    cache = cache or (runs[0] / "features" if runs else None)
    with Progress(stderr=True) as progress:
        result = run_temporal(models, open_store(store), settings, against=against, cache=cache, watch=progress.advance)
    if out:
        write_text(out, json.dumps({"schema": SCHEMA, "store": store.name, **asdict(result)}, indent=1) + "\n")
    console = Console()
    titles, *rows = _cells(result)
    if markdown or not console.is_terminal:
        lines = map(markdown_line, [titles, ["---"] * len(titles), *rows])
        print("\n".join([_heading(result), "", *lines, "", LEGEND]))
        return
    styles = ["bold" if row.kind == "encoder" else "" for row in result.rows]
    marked = [(map(escape, cells), style) for cells, style in zip(rows, styles, strict=True)]
    print_table(console, titles, marked, title=_heading(result))
    console.print(escape(LEGEND), style="dim")


def _heading(result: TemporalResult) -> str:
    counts = ", ".join(f"{name} of {num} episodes" for name, num in result.num_episodes.items())
    return f"{counts}, {result.settings.frames_per_episode} frames each"


def _cells(result: TemporalResult) -> list[list[str]]:
    """Return the table as text: first the titles of the columns, then the cells of each row."""
    titles, rows = [""], [[row.name] for row in result.rows]
    for score in result.num_episodes:
        references = list(dict.fromkeys(name for row in result.rows for name in row.minus[score]))
        titles += [score, *(f"minus {name}" for name in references)]
        for cells, row in zip(rows, result.rows, strict=True):
            cells += [
                interval_cell(row.scores[score]),
                *(interval_cell(row.minus[score].get(n), sign=True) for n in references),
            ]
    return [titles, *rows]
