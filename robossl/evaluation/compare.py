"""`robossl compare`: make one table of many runs.

The table has one line for each method (with all its seeds) and one column for each task.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from robossl.common.atomic_io import check_out
from robossl.errors import InputError
from robossl.evaluation.lines import Line as Line
from robossl.evaluation.lines import TableCell as TableCell
from robossl.evaluation.lines import in_order, print_lines
from robossl.evaluation.lines import read_lines as read_lines
from robossl.evaluation.lines import to_markdown as to_markdown
from robossl.evaluation.lines import write_lines as write_lines

if TYPE_CHECKING:
    from robossl.common.progress import Progress
    from robossl.evaluation.run import Watch
    from robossl.measure.bootstrap import Interval


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """A store, the labels to predict on it, and the splits to test on."""

    store: Path
    labels: tuple[str, ...]
    tests: tuple[str, ...]
    names_tests: bool = False  # True if the user named the splits; False if `tests` is the default

    @classmethod
    def parse(cls, text: str) -> LabelQuery:
        """Parse `STORE:LABEL,LABEL:TEST,TEST`, or `STORE:LABEL` to test on val.

        Raises:
            InputError: the text names no store or no label.

        Examples:
            >>> LabelQuery.parse("stores/droid:scene,verb:val,test_lab").tests
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
    """Compare many runs in one table with random weights, pooled pixels and the majority class.

    Runs whose configurations differ only in their seed share one line. The intervals of that line include the spread
    between seeds.

    Args:
        models: Run folders, encoder folders, exported models, other ONNX files, grpc://HOST:PORT/MODEL, timm:NAME
            or pip:NAME.
        on: Labels to predict, as STORE:LABEL,...:TEST_SPLIT,... for each store. With --split-by, leave out the test
            splits: STORE:LABEL,...
        state: Stores whose per-frame state is predicted by ridge regression, as STORE or STORE:COLUMN.
        protocol: knn, linear, or both.
        split_by: Make new splits that divide no group of episodes between training and test. A group is an episode, a
            lab, a day, or all episodes with the same value of any label. Default: the splits of the store.
        test_fraction: Share of episodes in the test split that --split-by makes.
        frames_per_episode: Number of frames to use of each episode, evenly spaced.
        min_episodes: Leave out classes with fewer episodes than this in the training split or in the test split.
        bootstrap: Number of bootstrap resamples of the episodes, which give the confidence intervals.
        random_seeds: Number of random initialisations that the baseline with random weights averages over.
        seed: Seed of random initialisations, resamples, cross-validation and --split-by.
        output: Features to use: pooled, or cls for the class token of a ViT, which DINO and MoCo v3 train and evaluate.
        cache: Folder that keeps features and scores for the next comparison.
        out: JSON file to write with all numbers.
        plot: PNG file to write with a plot of all scores and their intervals.
        markdown: Print markdown even on a terminal. Output to a file or a pipe is always markdown.
    """
    from rich.console import Console

    from robossl.common.progress import Progress

    if not models:
        raise InputError("nothing to compare; name two or more run folders")
    if not on and not state:
        raise InputError("nothing to read; name labels (--on STORE:LABEL,...) or a per-frame state (--state STORE)")
    check_out(out)
    check_out(plot, option="--plot")
    queries = [LabelQuery.parse(text) for text in on]
    if split_by is not None and any(query.names_tests for query in queries):
        raise InputError("--split-by makes splits of its own; leave the test splits out of --on: STORE:LABEL,...")
    label_settings = {"protocol": protocol, "split_by": split_by, "test_fraction": test_fraction}
    label_settings |= {"frames_per_episode": frames_per_episode, "min_episodes": min_episodes}
    settings = {"bootstrap": bootstrap, "random_seeds": random_seeds, "seed": seed, "output": output}
    lines: dict[str, Line] = {}
    with Progress(stderr=True) as progress:
        for name, kind, column, cell in _figures(models, queries, state, label_settings, settings, cache, progress):
            lines.setdefault(name, Line(name, kind, {})).cells[column] = cell
    table = write_lines(list(lines.values()), out)
    if plot:
        from robossl.evaluation.forest import write_forest

        write_forest(list(lines.values()), plot)
    console = Console()
    if markdown or not console.is_terminal:
        print(table)
    else:
        print_lines(in_order(lines.values()), console)


def _figures(
    models: tuple[str, ...],
    queries: list[LabelQuery],
    state: tuple[str, ...],
    label_settings: dict[str, Any],
    settings: dict[str, Any],
    cache: Path | None,
    progress: Progress,
) -> Iterator[tuple[str, str, str, TableCell]]:
    """Yield the cells of the table, each as (name of the line, kind of the line, name of the column, cell)."""
    from robossl.data.store import open_store
    from robossl.evaluation.run import EvaluationSettings, run_evaluation
    from robossl.evaluation.state import StateSettings, run_state

    states = [(Path(store), column or "state") for store, _, column in (text.partition(":") for text in state)]
    titles = _titles([*(query.store for query in queries), *(path for path, _ in states)])

    def watch(store: Path) -> Watch:
        return lambda what, done, total: progress.advance(f"{titles[store]}: {what}", done, total)

    for query in queries:
        chosen = EvaluationSettings(label=query.labels, test=query.tests, **label_settings, **settings)
        evaluation = run_evaluation(
            models,
            open_store(query.store),
            chosen,
            cache=cache,
            group_seeds=True,
            say=progress.say,
            watch=watch(query.store),
        )
        for result in evaluation.results:
            column = f"{titles[query.store]} {result.label} {result.test_split}, {result.protocol}"
            for row in result.rows:
                yield row.name, row.kind, column, TableCell(_percent(row.accuracy), _percent(_minus_random(row.minus)))
    for path, name in states:
        state_settings = StateSettings(column=name, **settings)
        probe = run_state(models, open_store(path), state_settings, cache=cache, group_seeds=True, watch=watch(path))
        for line in probe.rows:
            yield line.name, line.kind, f"{titles[path]} {name} R2", TableCell(line.r2, _minus_random(line.minus))


def _titles(stores: Iterable[Path]) -> dict[Path, str]:
    """Return a title for each store: the shortest end of its path that is not the end of another store's path."""
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
