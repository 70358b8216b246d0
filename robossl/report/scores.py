"""The scores on the page of a run: the first result as a headline, and a card for each result of an evaluation."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from robossl.data.store import open_store
from robossl.errors import InputError
from robossl.evaluation.result import Result, ScoreRow
from robossl.evaluation.table import accuracy_cell, classes_line
from robossl.measure.bootstrap import Interval
from robossl.report.record import RunRecord

PROTOCOL_NAMES = {"knn": "kNN", "linear": "linear probe"}


class Headline(NamedTuple):
    """The first result of the run's own encoder; if there is none, the command that evaluates the encoder."""

    command: str = ""
    label: str = ""
    split: str = ""
    accuracy: str = ""
    protocol: str = ""
    others: str = ""  # names and accuracies of the other rows of the same table


class ScoreBar(NamedTuple):
    """One row of a score card. Positions are in % of the width of the scale, which runs from 0 to 100 % accuracy."""

    kind: str
    name: str
    figure: str
    estimate: str
    range: tuple[str, str] | None  # left end and width of the interval; None if there is no interval


class ScoreCard(NamedTuple):
    """The scores for one label on one test split, measured by one protocol."""

    label: str
    split: str
    protocol: str
    classes: str
    num_classes: int
    num_episodes: int
    chance: str  # position of the chance level, in % of the width of the scale
    is_own: bool  # True if one of the rows is that of the run's current encoder
    bars: tuple[ScoreBar, ...]
    comparisons: tuple[tuple[str, str], ...]  # CSS class and text of each comparison with a baseline


class FirstMeasurement(NamedTuple):
    """What to do with a run whose encoder was never evaluated."""

    reason: str  # why no score is possible yet; "" if a score is possible
    command: str


def advise_measurement(record: RunRecord) -> FirstMeasurement:
    """Return the command that measures a run: `evaluate`, or `probe` if its store has no labels."""
    store = str(record.setting("data", "store") or "STORE")
    try:
        has_labels = bool(open_store(store).label_names)
    except InputError:  # the store is gone, or on another machine
        has_labels = True
    if has_labels:
        return FirstMeasurement("", shlex.join(["robossl", "evaluate", str(record.path), "--store", store, "--label"]))
    words = ["robossl", "probe", "run", str(record.path), "--data", store, "--profile", "light-and-sensor", "--out"]
    return FirstMeasurement("the store has no labels", shlex.join([*words, f"probes/{record.name}"]))


def make_headline(record: RunRecord) -> Headline | None:
    """Return the first result of the run's own encoder; None if nothing was evaluated.

    If only other encoders were evaluated, return the command that evaluates the run's own encoder.
    """
    results = _results(record)
    if not results:
        return None
    first, own = next(((result, own) for result, own in results if own), results[0])
    if own is None:
        command = f"robossl evaluate {shlex.quote(str(record.path))} --store STORE --label {shlex.quote(first.label)}"
        return Headline(command)
    others = ", ".join(f"{row.name} {_percent(row.accuracy)}" for row in first.rows if row is not own)
    return Headline("", first.label, first.test_split, _percent(own.accuracy), _protocol(first), others)


def make_cards(record: RunRecord) -> list[ScoreCard]:
    """Return a card for each label, test split and protocol."""
    return [_make_card(result, is_own=own is not None) for result, own in _results(record)]


def _results(record: RunRecord) -> list[tuple[Result, ScoreRow | None]]:
    return [
        (result, record.own_row(evaluation, result))
        for evaluation in record.evaluations
        for result in evaluation.results
    ]


def _make_card(result: Result, *, is_own: bool) -> ScoreCard:
    return ScoreCard(
        label=result.label,
        split=result.test_split,
        protocol=_protocol(result),
        classes=classes_line(result),
        num_classes=len(result.classes),
        num_episodes=result.num_test_episodes,
        chance=f"{100 / len(result.classes):.1f}",
        is_own=is_own,
        bars=tuple(map(_make_bar, result.rows)),
        comparisons=tuple(_compare(name, each) for row in result.rows for name, each in row.minus.items()),
    )


def _make_bar(row: ScoreRow) -> ScoreBar:
    estimate, low, high = (100 * value for value in row.accuracy)
    span = (f"{low:.1f}", f"{high - low:.1f}") if row.accuracy.is_defined else None
    return ScoreBar(row.kind, row.name, accuracy_cell(row.accuracy), f"{estimate:.1f}", span)


def _compare(reference: str, difference: Interval) -> tuple[str, str]:
    points = f"{100 * abs(difference.estimate):.0f} points"
    if not difference.is_defined:
        return "open", f"? {points} from {reference}: too few episodes for an interval"
    if not difference.excludes_zero:
        return "open", f"≈ not told apart from {reference} by these episodes"
    if difference.low > 0:
        return "above", f"▲ {points} above {reference}"
    return "below", f"▼ {points} below {reference}"


def _protocol(result: Result) -> str:
    return PROTOCOL_NAMES.get(result.protocol, result.protocol)


def _percent(accuracy: Interval) -> str:
    return f"{100 * accuracy.estimate:.0f} %"
