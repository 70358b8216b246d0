"""`robossl compare`: one table of many runs; a line a method (its seeds joined), a column a task."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from robossl.durable import check_out, write_text
from robossl.errors import InputError

if TYPE_CHECKING:
    from robossl.evaluate.evaluation import Watch
    from robossl.evaluate.progress import Progress
    from robossl.statistics import Interval

SCHEMA = "robossl.comparison/1"
KINDS = ("encoder", "random", "pixels", "majority")


@dataclass(frozen=True, slots=True)
class Asked:
    """One store and which labels are read off it, on which test splits."""

    store: Path
    labels: tuple[str, ...]
    tests: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Asked:
        """Read `STORE:LABEL,LABEL:TEST,TEST`, or `STORE:LABEL` to test on val.

        Raises:
            InputError: no store or no label in it.

        Examples:
            >>> Asked.parse("stores/droid:scene,verb:val,test_lab").tests
            ('val', 'test_lab')
        """
        store, _, rest = text.partition(":")
        labels, _, tests = rest.partition(":")
        if not store or not labels:
            raise InputError(f"--on {text!r} is not STORE:LABEL,...:SPLIT,...; e.g. stores/droid:scene:val,test_lab")
        return cls(Path(store), tuple(labels.split(",")), tuple((tests or "val").split(",")))


class Cell(NamedTuple):
    """A figure of one line in one column, and its paired difference to random weights."""

    value: Interval
    minus_random: Interval | None


class Line(NamedTuple):
    """One line: a method with its seeds, or a reference."""

    name: str
    kind: str
    cells: dict[str, Cell]  # by column


def compare(
    models: tuple[str, ...],
    *,
    on: tuple[str, ...] = (),
    state: tuple[str, ...] = (),
    protocol: tuple[str, ...] = ("knn", "linear"),
    frames_per_episode: int = 8,
    min_episodes: int = 5,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: Path | None = None,
    out: Path | None = None,
    plot: Path | None = None,
) -> str:
    """Put many runs into one table, beside random weights, pooled pixels and the majority class.

    Runs whose configurations differ in their seed alone are one line, and its intervals hold the luck of a seed.

    Args:
        models: Run folders, encoder folders or exported models.
        on: What to read, as STORE:LABEL,...:TEST_SPLIT,...; several may be given.
        state: Stores whose per-frame state is read by ridge regression, as STORE or STORE:COLUMN.
        protocol: knn, linear, or both.
        frames_per_episode: Frames embedded of each episode, evenly spaced.
        min_episodes: A class counts with this many episodes in both splits.
        bootstrap: Resamples of the episodes behind an interval.
        random_seeds: Random inits that the reference averages over.
        seed: Seed of random inits, resamples and cross-validation.
        output: pooled, or cls: the class token of a ViT, which DINO and MoCo v3 train and their papers read.
        cache: Folder that keeps features and scores for the next comparison.
        out: JSON file of every figure.
        plot: PNG of every figure with its interval.
    """
    from robossl.evaluate.progress import Progress

    if not models:
        raise InputError("nothing to compare; name two or more run folders")
    if not on and not state:
        raise InputError("nothing to read; name labels (--on STORE:LABEL,...) or a per-frame state (--state STORE)")
    check_out(out)
    check_out(plot, option="--plot")
    frames = {"frames_per_episode": frames_per_episode, "min_episodes": min_episodes}
    settings = {"bootstrap": bootstrap, "random_seeds": random_seeds, "seed": seed, "output": output}
    lines: dict[str, Line] = {}
    with Progress() as progress:
        for name, kind, column, cell in _figures(models, on, state, protocol, frames, settings, cache, progress):
            lines.setdefault(name, Line(name, kind, {})).cells[column] = cell
    table = write_lines(list(lines.values()), out)
    if plot:
        from robossl.evaluate.forest import write_forest

        write_forest(list(lines.values()), plot)
    return table


def write_lines(lines: list[Line], out: Path | None) -> str:
    """The table, encoders before references; `out` takes every figure as JSON."""
    ordered = sorted(lines, key=lambda line: KINDS.index(line.kind))
    if out:
        write_text(out, json.dumps({"schema": SCHEMA, "lines": [_plain(line) for line in ordered]}, indent=1) + "\n")
    return to_markdown(ordered)


def read_lines(path: Path) -> list[Line]:
    """The lines of a table that `compare` wrote.

    Raises:
        InputError: a file of another kind.
    """
    from robossl.statistics import Interval

    found = json.loads(path.read_text())
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise InputError(f"{path} is no table of `robossl compare`; name the file that its --out wrote")

    def cell(figures: dict[str, Any]) -> Cell:
        apart = figures["minus_random"]
        return Cell(Interval(*figures["value"]), None if apart is None else Interval(*apart))

    return [
        Line(line["name"], line["kind"], {column: cell(each) for column, each in line["cells"].items()})
        for line in found["lines"]
    ]


def _figures(
    models: tuple[str, ...],
    on: tuple[str, ...],
    state: tuple[str, ...],
    protocol: tuple[str, ...],
    frames: dict[str, Any],
    settings: dict[str, Any],
    cache: Path | None,
    progress: Progress,
) -> Iterator[tuple[str, str, str, Cell]]:
    """Name and kind of the line, column, figure."""
    from robossl.data.store import open_store
    from robossl.evaluate.evaluation import Settings, run_evaluation
    from robossl.evaluate.state import StateSettings, run_state

    asks = [Asked.parse(text) for text in on]
    states = [(Path(store), column or "state") for store, _, column in (text.partition(":") for text in state)]
    titles = _titles([*(asked.store for asked in asks), *(path for path, _ in states)])

    def watch(store: Path) -> Watch:
        return lambda what, done, total: progress.watch(f"{titles[store]}: {what}", done, total)

    for asked in asks:
        about = Settings(label=asked.labels, protocol=protocol, test=asked.tests, **frames, **settings)
        evaluation = run_evaluation(
            models,
            open_store(asked.store),
            about,
            cache=cache,
            group_seeds=True,
            say=progress.say,
            watch=watch(asked.store),
        )
        for result in evaluation.results:
            column = f"{titles[asked.store]} {result.label} {result.test_split}, {result.protocol}"
            for row in result.rows:
                yield row.name, row.kind, column, Cell(_percent(row.accuracy), _percent(_minus_random(row.minus)))
    for path, name in states:
        chosen = StateSettings(column=name, **settings)
        probe = run_state(models, open_store(path), chosen, cache=cache, group_seeds=True, watch=watch(path))
        for line in probe.rows:
            yield line.name, line.kind, f"{titles[path]} {name} R2", Cell(line.r2, _minus_random(line.minus))


def _titles(stores: Iterable[Path]) -> dict[Path, str]:
    """The end of each store's path that no other ends in: its name, or as many folders before it as it takes."""
    parts = {store: Path(os.path.abspath(store)).parts for store in stores}
    distinct = set(parts.values())

    def title(own: tuple[str, ...]) -> str:
        lengths = range(1, 1 + len(own))
        return str(Path(*own[-next(n for n in lengths if sum(other[-n:] == own[-n:] for other in distinct) == 1) :]))

    return {store: title(own) for store, own in parts.items()}


def _minus_random(minus: dict[str, Interval]) -> Interval | None:
    return next((difference for name, difference in minus.items() if name.startswith("random ")), None)


def _percent(interval: Interval | None) -> Any:
    return None if interval is None else type(interval)(*(100 * value for value in interval))


def to_markdown(lines: list[Line]) -> str:
    """The table, its best figure of each column in bold."""
    from robossl.evaluate.table import markdown_line

    columns = list(dict.fromkeys(column for line in lines for column in line.cells))
    best = {c: max(line.cells[c].value.estimate for line in lines if c in line.cells) for c in columns}
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    for line in lines:
        rows.append([line.name, *(_shown(line.cells.get(column), best[column]) for column in columns)])
    table = "\n".join(map(markdown_line, rows))
    return f"{table}\n\n{LEGEND}"


LEGEND = (
    "Balanced accuracy of episodes in %, mean R2 for a state; 95 % intervals over episodes and seeds; bold is the best "
    "of a column, ^ or v: above or below random weights of the same backbone by a paired interval that excludes zero."
)


def _shown(cell: Cell | None, best: float) -> str:
    if cell is None:
        return ""
    digits = 2 if abs(best) <= 1 else 1
    estimate, low, high = cell.value
    text = f"{estimate:.{digits}f}"
    text = f"**{text}**" if estimate == best else text
    text += f" [{low:.{digits}f}, {high:.{digits}f}]" if cell.value.is_defined else ""
    apart = cell.minus_random
    return text + (f" {'^' if apart.low > 0 else 'v'}" if apart is not None and apart.excludes_zero else "")


def _plain(line: Line) -> dict[str, Any]:
    cells = {
        column: {
            "value": list(cell.value),
            "minus_random": None if cell.minus_random is None else list(cell.minus_random),
        }
        for column, cell in line.cells.items()
    }
    return {"name": line.name, "kind": line.kind, "cells": cells}
