"""`robossl probe compare`: compare reports on the same frames factor by factor; mark significant differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.common.atomic_io import check_out
from robossl.measure.figures import Draws, draw, holm
from robossl.probes.document import read_report
from robossl.probes.grouping import get_badge
from robossl.probes.profile import Thresholds
from robossl.probes.report.lookup import ReportIndex
from robossl.probes.report.words import count_verdicts, format_figure, format_name, format_number, list_head_rows
from robossl.probes.result import Cell, Figure, Report
from robossl.probes.same_frames import check_count, check_same_frames

RESAMPLES = 10_000
# Allowed probability that a comparison of two encoders makes one or more false claims (see `_mark_claims`).
FALSE_CLAIMS = 0.05


@dataclass(frozen=True, slots=True)
class ReportDifference:
    """Difference of NIS_w (whitened invariance): that of a later report minus that of the first report.

    `value`, `low` and `high` are the difference and its 95 % interval. A field is None if it could not be computed.
    """

    value: float | None
    low: float | None
    high: float | None
    is_claim: bool  # True if the difference is significant after Holm's correction for the number of factors
    # True if the interval comes from paired resamples. False if it comes from two separate intervals, so it is wider.
    is_paired: bool
    reason: str | None = None  # why `value` or the interval is None


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """Row of the comparison's table: one factor, at the severest strength that the first report judges."""

    factor: str
    level: int
    need: str
    figures: tuple[Figure | None, ...]  # NIS_w (whitened invariance) in each report
    words: tuple[str | None, ...]  # each report's verdict or a mark such as "left out"; None if not judged
    differences: tuple[ReportDifference, ...]  # NIS_w in each later report minus NIS_w in the first report


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several probe reports on the same frames, with a row of numbers for each factor."""

    reports: tuple[Report, ...]
    names: tuple[str, ...]
    rows: tuple[ComparisonRow, ...]


def compare(reports: tuple[Path, ...], *, out: Path | None = None) -> str:
    """Compare two to four reports in one table; show how each later report differs from the first report.

    Args:
        reports: Reports of `robossl probe run` on the same frames.
        out: HTML page to write in addition to the printed table.

    Raises:
        InputError: there are too few or too many reports, or they were made from different frames or settings.
    """
    check_count(len(reports))
    found, origins = [read_report(path) for path in reports], list(map(str, reports))
    check_same_frames(found, origins)
    check_out(out)
    comparison = compare_reports(found, origins=origins)
    if out is not None:
        from robossl.probes.report.compare_page import write_compare_page

        write_compare_page(comparison, out)
    return to_text(comparison)


def compare_reports(reports: Sequence[Report], *, origins: Sequence[str]) -> Comparison:
    """Compare two to four reports. `origins` holds the name of each report for error messages.

    Raises:
        InputError: there are too few or too many reports, or they were made from different frames or settings.
    """
    check_count(len(reports))
    check_same_frames(reports, origins)
    indexes = [ReportIndex(report) for report in reports]
    places = [(factor, indexes[0].shown_level(factor)) for factor in indexes[0].names]
    columns = [_mark_claims([_difference(indexes[0], index, *place) for place in places]) for index in indexes[1:]]
    rows = []
    for i, (factor, level) in enumerate(places):
        verdicts = [index.verdict(factor) for index in indexes]
        rows.append(
            ComparisonRow(
                factor,
                level,
                indexes[0].need(factor, level),
                tuple(index.cell(factor, level) for index in indexes),
                tuple(get_badge(each) if each else None for each in verdicts),
                tuple(column[i] for column in columns),
            )
        )
    names = [report.encoder.name for report in reports]
    shown = [
        n if names.count(n) == 1 else f"{n} ({report.encoder.source})" for n, report in zip(names, reports, strict=True)
    ]
    return Comparison(tuple(reports), tuple(shown), tuple(rows))


def _difference(first: ReportIndex, other: ReportIndex, factor: str, level: int) -> tuple[ReportDifference, float]:
    """Return NIS_w (invariance) of `other` minus that of `first`, and the p-value (1 if there is no interval)."""
    cells = [_cell(index.report, factor, level) for index in (first, other)]
    for index, cell in zip((first, other), cells, strict=True):
        if index.is_collapsed or cell is None or cell.figure.value is None:
            why = "collapsed" if index.is_collapsed else "not measured" if cell is None else str(cell.figure.reason)
            return ReportDifference(None, None, None, False, False, why), 1.0
    was, now = (cell for cell in cells if cell is not None)
    assert was.figure.value is not None and now.figure.value is not None
    value = now.figure.value - was.figure.value
    if min(was.figure.clusters, now.figure.clusters) < Thresholds().min_clusters:
        return ReportDifference(value, None, None, False, False, "too few clusters for an interval"), 1.0
    if len(was.shares) == len(now.shares) > 1:
        return _paired(np.array(was.shares), np.array(now.shares))
    return _unpaired(value, was.figure, now.figure)


def _cell(report: Report, factor: str, level: int) -> Cell | None:
    cells = report.readings.cells
    return next((each for each in cells if (each.factor, each.level, each.metric) == (factor, level, "nis_w")), None)


def _paired(was: Float[ndarray, "c 2"], now: Float[ndarray, "c 2"]) -> tuple[ReportDifference, float]:
    found = _draws(len(was)).difference(now, was, _ratio)
    figure = found.figure
    if figure.value is None:
        return ReportDifference(None, None, None, False, True, figure.reason), 1.0
    return ReportDifference(figure.value, figure.low, figure.high, False, True), found.p


@cache
def _draws(clusters: int) -> Draws:
    """Return bootstrap resamples of the clusters (such as episodes), the same for all factors and encoders."""
    return draw(np.arange(clusters), num_resamples=RESAMPLES)


def _ratio(sums: Float[ndarray, "... 3"]) -> Float[ndarray, " ..."]:
    """Return the ratio of column 1 (a sum of numerators) to column 2 (a sum of denominators). Column 0 is not used."""
    return np.asarray(sums[..., 1] / sums[..., 2])


def _unpaired(value: float, was: Figure, now: Figure) -> tuple[ReportDifference, float]:
    from scipy.stats import norm

    bounds = (was.low, was.high, now.low, now.high)
    if None in bounds:
        return ReportDifference(value, None, None, False, False, "no interval"), 1.0
    before, after = ((float(high or 0) - float(low or 0)) / 2 for low, high in (bounds[:2], bounds[2:]))
    half = float(np.hypot(before, after))
    p = float(2 * norm.sf(abs(value) / max(half / 1.96, 1e-12)))
    return ReportDifference(value, value - half, value + half, False, False), p


def _mark_claims(found: Sequence[tuple[ReportDifference, float]]) -> list[ReportDifference]:
    """Mark significant differences as claims. Holm's correction does not count differences without an interval."""
    p_values = [math.nan if difference.low is None else p for difference, p in found]
    claims = [bool(p <= FALSE_CLAIMS) for p in holm(np.array(p_values))]
    return [replace(difference, is_claim=claim) for (difference, _), claim in zip(found, claims, strict=True)]


def to_text(comparison: Comparison) -> str:
    """Return the comparison as text: the verdicts, the tables in Markdown, and an explanation of the tables."""
    first, *others = comparison.names
    head = ["factor", "strength", "need", *comparison.names, *(f"{name} minus {first}" for name in others)]
    rows = [head, ["---"] * len(head)]
    for row in comparison.rows:
        figures = [
            format_figure(figure) + (f" {word}" if word else "")
            for figure, word in zip(row.figures, row.words, strict=True)
        ]
        rows.append(
            [format_name(row.factor), str(row.level), row.need, *figures, *map(format_difference, row.differences)]
        )
    named = zip(comparison.reports, comparison.names, strict=True)
    words = "\n".join(f"- {name}: {report.word}: {count_verdicts(report)}" for report, name in named if report.word)
    read = list_head_rows([report.readings for report in comparison.reports])
    above = _markdown([["read off clean frames", *comparison.names], ["---"] * (len(comparison.names) + 1), *read])
    parts = (words, above if read else "", _markdown(rows), describe_comparison(comparison))
    return "\n\n".join(part for part in parts if part)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def format_difference(difference: ReportDifference) -> str:
    """Return a difference as the text of a table cell."""
    if difference.value is None:
        return difference.reason or "-"
    sign = "+" if difference.value >= 0 else ""
    if difference.low is None:
        return f"{sign}{format_number(difference.value)} ({difference.reason})"
    mark = "" if not difference.is_claim else " ^" if difference.value > 0 else " v"
    low, high = format_number(difference.low), format_number(difference.high)
    return f"{sign}{format_number(difference.value)} [{low}, {high}]{mark}"


def describe_comparison(comparison: Comparison, *, marks: str = "^ or v") -> str:
    """Return text that explains the numbers and marks of the table; `marks` says what the marks look like."""
    data, found = comparison.reports[0].data, [d for row in comparison.rows for d in row.differences]
    paired = all(difference.is_paired for difference in found if difference.low is not None)
    how = "paired bootstrap of the clusters" if paired else "two separate intervals, which is wider than a paired one"
    return (
        f"NIS_w with 95 % intervals, {data.n_evaluation} frames of {data.name} in {data.num_clusters} clusters; "
        f"differences by {how}. {marks}: more or less invariant, at most a {100 * FALSE_CLAIMS:.0f} % chance of one "
        "false mark in a column (Holm). More invariant is better only for factors that need INV."
        f"{_warn_of_tasks(comparison)}"
    )


def _warn_of_tasks(comparison: Comparison) -> str:
    """Return a warning if the reports judge different tasks or read different labels; otherwise ""."""
    tasks = [report.task for report in comparison.reports]
    labels = [report.data.labels for report in comparison.reports]
    if len({task.sha256 if task else None for task in tasks}) == 1:
        if len(set(labels)) == 1:
            return ""
        read = ", ".join(f"{n}: {', '.join(each) or 'none'}" for n, each in zip(comparison.names, labels, strict=True))
        return f" The reports read different labels ({read}): do not compare their verdicts."
    judged = ", ".join(
        f"{name}: {task.profile if task else 'none'}" for name, task in zip(comparison.names, tasks, strict=True)
    )
    return f" The reports judge different tasks ({judged}): the needs are of the first; do not compare verdicts."
