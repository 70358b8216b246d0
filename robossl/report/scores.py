"""The evaluation part of the page: dots with intervals, and in words which differences the data carry."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from robossl.evaluate.result import Evaluation, Result, Row
from robossl.evaluate.table import LEGEND, accuracy_cell, classes_line, notes
from robossl.statistics import Interval

PROTOCOL_NAMES = {"knn": "kNN", "linear": "linear probe"}


def headline(evaluations: Sequence[Evaluation]) -> str:
    """The first result in one sentence, as HTML."""
    results = [result for evaluation in evaluations for result in evaluation.results]
    if not results:
        return "Not evaluated yet: <code>robossl evaluate RUN --store STORE --label LABEL</code> measures it."
    first = results[0]
    encoder, *others = sorted(first.rows, key=lambda row: row.kind != "encoder")
    beside = ", ".join(f"{escape(row.name)} {_percent(row.accuracy)}" for row in others)
    return (
        f"Reads <em>{escape(first.label)}</em> off unseen episodes of <em>{escape(first.test_split)}</em> at "
        f"<strong>{_percent(encoder.accuracy)}</strong> balanced accuracy by {_protocol(first)} ({beside})."
    )


def render_scores(evaluations: Sequence[Evaluation]) -> str:
    """A card for each label, test split and protocol; the fine print folded away."""
    results = [result for evaluation in evaluations for result in evaluation.results]
    if not results:
        return ""
    cards = "".join(map(_card, results))
    lines = [note for evaluation in evaluations for note in notes(evaluation)]
    fine = "".join(f"<li>{escape(line)}</li>" for line in dict.fromkeys(lines))
    return (
        '<section><h2>What the encoder can tell apart</h2><p class="lead">A label is read off frozen features of '
        "episodes the reader never saw. Beside it: the same network before training, raw pixels, and always guessing "
        f'the commonest class.</p><div class="scores">{cards}</div><p class="legend"><i class="dot"></i> score '
        '<i class="range"></i> 95 % interval <i class="chance"></i> guessing; each bar runs from 0 to 100 %</p>'
        f"<details><summary>Every comparison, and how it was measured</summary><p>{escape(LEGEND)}</p><ul>{fine}</ul>"
        "</details></section>"
    )


def _card(result: Result) -> str:
    chance = 1 / len(result.classes)
    rows = "".join(_row(row, chance) for row in result.rows)
    comparisons = "".join(
        _comparison(reference, difference) for row in result.rows for reference, difference in row.minus.items()
    )
    return (
        f'<article class="card" title="{escape(classes_line(result))}"><h3>{escape(result.label)} on '
        f'{escape(result.test_split)} <span class="badge">{escape(_protocol(result))}</span></h3>'
        f'<p class="count">{len(result.classes)} classes, {result.num_test_episodes} episodes</p>'
        f'{rows}<ul class="comparisons">{comparisons}</ul></article>'
    )


def _row(row: Row, chance: float) -> str:
    estimate, low, high = (100 * value for value in row.accuracy)
    span = f'<i class="range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>' if row.accuracy.is_defined else ""
    figure = escape(accuracy_cell(row.accuracy))
    guess, dot = (
        f'<i class="{kind}" style="left:{at:.1f}%"></i>' for kind, at in (("chance", 100 * chance), ("dot", estimate))
    )
    return (
        f'<div class="row {row.kind}"><span class="name">{escape(row.name)}</span>'
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
