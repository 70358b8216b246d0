"""The evaluation part of the page: dots with intervals, and in words which differences the data carry."""

from __future__ import annotations

import shlex
from html import escape

from robossl.evaluate.result import Result, ScoreRow
from robossl.evaluate.table import LEGEND, accuracy_cell, classes_line, notes
from robossl.measure.bootstrap import Interval
from robossl.report.record import RunRecord

PROTOCOL_NAMES = {"knn": "kNN", "linear": "linear probe"}


def headline(record: RunRecord) -> str:
    """The first result of the run's own encoder in one sentence, as HTML."""
    results = _results(record)
    if not results:
        return "Not evaluated yet: <code>robossl evaluate RUN --store STORE --label LABEL</code> measures it."
    first, own = next(((result, own) for result, own in results if own), results[0])
    if own is None:
        command = f"robossl evaluate {shlex.quote(str(record.path))} --store STORE --label {shlex.quote(first.label)}"
        return (
            "Not evaluated yet: the scores below are of an earlier or another encoder, not of the one this run "
            f"holds now. <code>{escape(command)}</code> measures it."
        )
    beside = ", ".join(f"{escape(row.name)} {_percent(row.accuracy)}" for row in first.rows if row is not own)
    return (
        f"Reads <em>{escape(first.label)}</em> off unseen episodes of <em>{escape(first.test_split)}</em> at "
        f"<strong>{_percent(own.accuracy)}</strong> balanced accuracy by {escape(_protocol(first))} ({beside})."
    )


def render_scores(record: RunRecord) -> str:
    """A card for each label, test split and protocol; the fine print folded away."""
    results = _results(record)
    if not results:
        return ""
    cards = "".join(_card(result, is_own=own is not None) for result, own in results)
    lines = [note for evaluation in record.evaluations for note in notes(evaluation)]
    fine = "".join(f"<li>{escape(line)}</li>" for line in dict.fromkeys(lines))
    return (
        '<section><h2>What the encoder can tell apart</h2><p class="lead">A label is read off frozen features of '
        "episodes the reader never saw. Beside it: the same network before training, raw pixels, and always guessing "
        f'the commonest class.</p><div class="scores">{cards}</div><p class="legend"><i class="dot"></i> score '
        '<i class="range"></i> 95 % interval <i class="chance"></i> guessing; each bar runs from 0 to 100 %</p>'
        f"<details><summary>Every comparison, and how it was measured</summary><p>{escape(LEGEND)}</p><ul>{fine}</ul>"
        "</details></section>"
    )


def _results(record: RunRecord) -> list[tuple[Result, ScoreRow | None]]:
    return [
        (result, record.own_row(evaluation, result))
        for evaluation in record.evaluations
        for result in evaluation.results
    ]


def _card(result: Result, *, is_own: bool) -> str:
    chance = 1 / len(result.classes)
    remark = "" if is_own else '<p class="caution">Of an earlier or another encoder, not the one this run holds now</p>'
    rows = "".join(_row(row, chance) for row in result.rows)
    comparisons = "".join(
        _comparison(reference, difference) for row in result.rows for reference, difference in row.minus.items()
    )
    return (
        f'<article class="card" title="{escape(classes_line(result))}"><h3>{escape(result.label)} on '
        f'{escape(result.test_split)} <span class="badge">{escape(_protocol(result))}</span></h3>'
        f'<p class="count">{len(result.classes)} classes, {result.num_test_episodes} episodes</p>'
        f'{remark}{rows}<ul class="comparisons">{comparisons}</ul></article>'
    )


def _row(row: ScoreRow, chance: float) -> str:
    estimate, low, high = (100 * value for value in row.accuracy)
    span = f'<i class="range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>' if row.accuracy.is_defined else ""
    figure = escape(accuracy_cell(row.accuracy))
    guess, dot = (
        f'<i class="{kind}" style="left:{at:.1f}%"></i>' for kind, at in (("chance", 100 * chance), ("dot", estimate))
    )
    return (
        f'<div class="row {escape(row.kind)}"><span class="name">{escape(row.name)}</span>'
        f'<span class="track" role="img" aria-label="{figure} %">{guess}{span}{dot}</span>'
        f'<span class="figure">{figure}</span></div>'
    )


def _comparison(reference: str, difference: Interval) -> str:
    name, points = escape(reference), f"{100 * abs(difference.estimate):.0f} points"
    if not difference.is_defined:
        return f'<li class="open">? {points} from {name}: too few episodes for an interval</li>'
    if not difference.excludes_zero:
        return f'<li class="open">≈ not told apart from {name} by these episodes</li>'
    if difference.low > 0:
        return f'<li class="above">▲ {points} above {name}</li>'
    return f'<li class="below">▼ {points} below {name}</li>'


def _protocol(result: Result) -> str:
    return PROTOCOL_NAMES.get(result.protocol, result.protocol)


def _percent(accuracy: Interval) -> str:
    return f"{100 * accuracy.estimate:.0f} %"
