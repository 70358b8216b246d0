"""`robossl compare`: one table of many runs; a line a method (its seeds joined), a column a task."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robossl.durable import check_out
from robossl.errors import InputError
from robossl.evaluate.lines import Cell as Cell
from robossl.evaluate.lines import Line as Line
from robossl.evaluate.lines import in_order, print_lines
from robossl.evaluate.lines import read_lines as read_lines
from robossl.evaluate.lines import to_markdown as to_markdown
from robossl.evaluate.lines import write_lines as write_lines

if TYPE_CHECKING:
    from robossl.evaluate.evaluation import Watch
    from robossl.progress import Progress
    from robossl.statistics import Interval


@dataclass(frozen=True, slots=True)
class Asked:
    """One store and which labels are read off it, on which test splits."""

    store: Path
    labels: tuple[str, ...]
    tests: tuple[str, ...]
    names_tests: bool = False  # or they are the default

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
        return cls(Path(store), tuple(labels.split(",")), tuple((tests or "val").split(",")), names_tests=bool(tests))


def compare(
    models: tuple[str, ...],
    *,
    on: tuple[str, ...] = (),
    state: tuple[str, ...] = (),
    protocol: tuple[str, ...] = ("knn", "linear"),
    split_by: str | None = None,
    test_fraction: float = 0.2,
    frames_per_episode: int = 8,
    min_episodes: int = 5,
    bootstrap: int = 2000,
    random_seeds: int = 3,
    seed: int = 0,
    output: Literal["pooled", "cls"] = "pooled",
    cache: Path | None = None,
    out: Path | None = None,
    plot: Path | None = None,
    markdown: bool = False,
) -> None:
    """Put many runs into one table, beside random weights, pooled pixels and the majority class.

    Runs whose configurations differ in their seed alone are one line, and its intervals hold the luck of a seed.

    Args:
        models: Run folders, encoder folders or exported models.
        on: What to read, as STORE:LABEL,...:TEST_SPLIT,...; several may be given. With --split-by, STORE:LABEL,...
        state: Stores whose per-frame state is read by ridge regression, as STORE or STORE:COLUMN.
        protocol: knn, linear, or both.
        split_by: Instead of the stores' splits: keep every episode, lab, day, or value of any label, on one side.
        test_fraction: Share of episodes tested with --split-by.
        frames_per_episode: Frames embedded of each episode, evenly spaced.
        min_episodes: A class counts with this many episodes in both splits.
        bootstrap: Resamples of the episodes behind an interval.
        random_seeds: Random inits that the reference averages over.
        seed: Seed of random inits, resamples and cross-validation.
        output: pooled, or cls: the class token of a ViT, which DINO and MoCo v3 train and their papers read.
        cache: Folder that keeps features and scores for the next comparison.
        out: JSON file of every figure.
        plot: PNG of every figure with its interval.
        markdown: Print markdown on a terminal too, as it is printed into a file or a pipe.
    """
    from rich.console import Console

    from robossl.progress import Progress

    if not models:
        raise InputError("nothing to compare; name two or more run folders")
    if not on and not state:
        raise InputError("nothing to read; name labels (--on STORE:LABEL,...) or a per-frame state (--state STORE)")
    check_out(out)
    check_out(plot, option="--plot")
    asks = [Asked.parse(text) for text in on]
    if split_by is not None and any(asked.names_tests for asked in asks):
        raise InputError("--split-by makes splits of its own; leave the test splits out of --on: STORE:LABEL,...")
    of_labels = {"protocol": protocol, "split_by": split_by, "test_fraction": test_fraction}
    of_labels |= {"frames_per_episode": frames_per_episode, "min_episodes": min_episodes}
    settings = {"bootstrap": bootstrap, "random_seeds": random_seeds, "seed": seed, "output": output}
    lines: dict[str, Line] = {}
    with Progress(stderr=True) as progress:
        for name, kind, column, cell in _figures(models, asks, state, of_labels, settings, cache, progress):
            lines.setdefault(name, Line(name, kind, {})).cells[column] = cell
    table = write_lines(list(lines.values()), out)
    if plot:
        from robossl.evaluate.forest import write_forest

        write_forest(list(lines.values()), plot)
    console = Console()
    if markdown or not console.is_terminal:
        print(table)
    else:
        print_lines(in_order(lines.values()), console)


def _figures(
    models: tuple[str, ...],
    asks: list[Asked],
    state: tuple[str, ...],
    of_labels: dict[str, Any],
    settings: dict[str, Any],
    cache: Path | None,
    progress: Progress,
) -> Iterator[tuple[str, str, str, Cell]]:
    """Name and kind of the line, column, figure."""
    from robossl.data.store import open_store
    from robossl.evaluate.evaluation import Settings, run_evaluation
    from robossl.evaluate.state import StateSettings, run_state

    states = [(Path(store), column or "state") for store, _, column in (text.partition(":") for text in state)]
    titles = _titles([*(asked.store for asked in asks), *(path for path, _ in states)])

    def watch(store: Path) -> Watch:
        return lambda what, done, total: progress.advance(f"{titles[store]}: {what}", done, total)

    for asked in asks:
        about = Settings(label=asked.labels, test=asked.tests, **of_labels, **settings)
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
