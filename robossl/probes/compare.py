"""`robossl probe compare`: reports on the same frames, factor by factor, and which differences those frames carry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.durable import check_out
from robossl.measure.figures import Draws, draw, holm
from robossl.probes.document import read_report
from robossl.probes.grouping import badge
from robossl.probes.profile import Thresholds
from robossl.probes.report.lookup import Lookup
from robossl.probes.report.words import counted, head_rows, short, title, with_interval
from robossl.probes.result import Cell, Figure, Report
from robossl.probes.same_frames import check_count, check_same_frames

RESAMPLES = 10_000
FALSE_CLAIMS = 0.05  # chance of one false claim or more among all factors of a comparison (Holm)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more invariant one encoder is than the first; None where the frames cannot say."""

    value: float | None
    low: float | None
    high: float | None
    is_claim: bool  # after Holm's correction over the factors
    is_paired: bool  # on the same resamples of the same clusters; else from the two intervals, which is wider
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One factor at the severest strength that the first report judges."""

    factor: str
    level: int
    need: str
    figures: tuple[Figure | None, ...]  # NIS_w of each report
    words: tuple[str | None, ...]  # what each report's verdict is shown as
    differences: tuple[Difference, ...]  # of the second, third, ... to the first


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several reports on the same frames."""

    reports: tuple[Report, ...]
    names: tuple[str, ...]
    rows: tuple[Row, ...]


def compare(reports: tuple[Path, ...], *, out: Path | None = None) -> str:
    """Put two to four reports into one table, with the paired difference of each to the first.

    Args:
        reports: What `robossl probe run` wrote, on the same frames.
        out: HTML page to write as well.

    Raises:
        InputError: too few or too many reports, or of different frames.
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
    """Compare reports; `origins` name them in messages.

    Raises:
        InputError: too few or too many, or of different frames.
    """
    check_count(len(reports))
    check_same_frames(reports, origins)
    looks = [Lookup(report) for report in reports]
    places = [(factor, looks[0].shown_level(factor) or 1) for factor in looks[0].names]
    columns = [_marked([_difference(looks[0], look, *place) for place in places]) for look in looks[1:]]
    rows = []
    for i, (factor, level) in enumerate(places):
        verdicts = [look.verdict(factor) for look in looks]
        rows.append(
            Row(
                factor,
                level,
                looks[0].need(factor, level),
                tuple(look.cell(factor, level) for look in looks),
                tuple(badge(each) if each else None for each in verdicts),
                tuple(column[i] for column in columns),
            )
        )
    names = [report.encoder.name for report in reports]
    told = [
        n if names.count(n) == 1 else f"{n} ({report.encoder.source})" for n, report in zip(names, reports, strict=True)
    ]
    return Comparison(tuple(reports), tuple(told), tuple(rows))


def _difference(first: Lookup, other: Lookup, factor: str, level: int) -> tuple[Difference, float]:
    """The difference, and how surprising it would be between equals."""
    cells = [_cell(look.report, factor, level) for look in (first, other)]
    for look, cell in zip((first, other), cells, strict=True):
        if look.is_collapsed or cell is None or cell.figure.value is None:
            why = "collapsed" if look.is_collapsed else "not measured" if cell is None else str(cell.figure.reason)
            return Difference(None, None, None, False, False, why), 1.0
    was, now = (cell for cell in cells if cell is not None)
    assert was.figure.value is not None and now.figure.value is not None
    value = now.figure.value - was.figure.value
    if min(was.figure.clusters, now.figure.clusters) < Thresholds().min_clusters:
        return Difference(value, None, None, False, False, "too few clusters for an interval"), 1.0
    if len(was.shares) == len(now.shares) > 1:
        return _paired(np.array(was.shares), np.array(now.shares))
    return _unpaired(value, was.figure, now.figure)


def _cell(report: Report, factor: str, level: int) -> Cell | None:
    cells = report.readings.cells
    return next((each for each in cells if (each.factor, each.level, each.metric) == (factor, level, "nis_w")), None)


def _paired(was: Float[ndarray, "c 2"], now: Float[ndarray, "c 2"]) -> tuple[Difference, float]:
    found = _draws(len(was)).difference(now, was, _ratio)
    figure = found.figure
    if figure.value is None:
        return Difference(None, None, None, False, True, figure.reason), 1.0
    return Difference(figure.value, figure.low, figure.high, False, True), found.p


@cache
def _draws(clusters: int) -> Draws:
    """Resamples of the clusters; the same for all factors and encoders."""
    return draw(np.arange(clusters), num_resamples=RESAMPLES)


def _ratio(sums: Float[ndarray, "... 3"]) -> Float[ndarray, " ..."]:
    """The first part over the second."""
    return np.asarray(sums[..., 1] / sums[..., 2])


def _unpaired(value: float, was: Figure, now: Figure) -> tuple[Difference, float]:
    from scipy.stats import norm

    bounds = (was.low, was.high, now.low, now.high)
    if None in bounds:
        return Difference(value, None, None, False, False, "no interval"), 1.0
    before, after = ((float(high or 0) - float(low or 0)) / 2 for low, high in (bounds[:2], bounds[2:]))
    half = float(np.hypot(before, after))
    chance = float(2 * norm.sf(abs(value) / max(half / 1.96, 1e-12)))
    return Difference(value, value - half, value + half, False, False), chance


def _marked(found: Sequence[tuple[Difference, float]]) -> list[Difference]:
    """Mark the differences that hold together; those without an interval make no claim and cost none."""
    chances = [math.nan if difference.low is None else chance for difference, chance in found]
    together = holm(np.array(chances))
    claims = [bool(p <= FALSE_CLAIMS) for p in together]
    return [replace(difference, is_claim=claim) for (difference, _), claim in zip(found, claims, strict=True)]


def to_text(comparison: Comparison) -> str:
    """The verdicts, the tables in Markdown, and how to read them."""
    first, *others = comparison.names
    head = ["factor", "strength", "need", *comparison.names, *(f"{name} minus {first}" for name in others)]
    rows = [head, ["---"] * len(head)]
    for row in comparison.rows:
        figures = [
            with_interval(figure) + (f" {word}" if word else "")
            for figure, word in zip(row.figures, row.words, strict=True)
        ]
        rows.append([title(row.factor), str(row.level), row.need, *figures, *map(told, row.differences)])
    named = zip(comparison.reports, comparison.names, strict=True)
    words = "\n".join(f"- {name}: {report.word}: {counted(report)}" for report, name in named if report.word)
    read = head_rows([report.readings for report in comparison.reports])
    above = _markdown([["read off clean frames", *comparison.names], ["---"] * (len(comparison.names) + 1), *read])
    parts = (words, above if read else "", _markdown(rows), legend(comparison))
    return "\n\n".join(part for part in parts if part)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def told(difference: Difference) -> str:
    """A difference in the cell of a table."""
    if difference.value is None:
        return difference.reason or "-"
    sign = "+" if difference.value >= 0 else ""
    if difference.low is None:
        return f"{sign}{short(difference.value)} ({difference.reason})"
    mark = "" if not difference.is_claim else " ^" if difference.value > 0 else " v"
    return f"{sign}{short(difference.value)} [{short(difference.low)}, {short(difference.high)}]{mark}"


def legend(comparison: Comparison, *, marks: str = "^ or v") -> str:
    """What the figures and marks mean."""
    data, found = comparison.reports[0].data, [d for row in comparison.rows for d in row.differences]
    paired = all(difference.is_paired for difference in found if difference.low is not None)
    how = "paired bootstrap of the clusters" if paired else "two separate intervals, which is wider than a paired one"
    return (
        f"NIS_w with 95 % intervals, {data.n_evaluation} frames of {data.name} in {data.num_clusters} clusters; "
        f"differences by {how}. {marks}: more or less invariant, at most a {100 * FALSE_CLAIMS:.0f} % chance of one "
        f"false mark in a column (Holm). More invariant is better only where the need is INV.{_tasks(comparison)}"
    )


def _tasks(comparison: Comparison) -> str:
    """A warning where the verdicts are not for one task."""
    tasks = [report.task for report in comparison.reports]
    labels = [report.data.labels for report in comparison.reports]
    if len({task.sha256 if task else None for task in tasks}) == 1:
        if len(set(labels)) == 1:
            return ""
        read = ", ".join(f"{n}: {', '.join(each) or 'none'}" for n, each in zip(comparison.names, labels, strict=True))
        return f" The reports read different labels ({read}): verdicts are not to be compared."
    told = ", ".join(
        f"{name}: {task.profile if task else 'none'}" for name, task in zip(comparison.names, tasks, strict=True)
    )
    return f" The reports judge different tasks ({told}): the needs are the first's, verdicts are not to be compared."
