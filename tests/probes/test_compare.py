"""Comparing probe reports: same frames only, pairs where there are pairs, few false claims."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from probe_report_kit import make_report, named

from robossl.errors import InputError
from robossl.probes.compare import Comparison, compare, compare_reports, to_text
from robossl.probes.document import write_report
from robossl.probes.result import Cell, Report

REPORT = make_report()


def compared(*reports: Report) -> Comparison:
    return compare_reports(reports, origins=[f"{i}.json" for i in range(len(reports))])


def without_shares(report: Report) -> Report:
    cells = tuple(replace(cell, shares=()) for cell in report.readings.cells)
    return replace(report, readings=replace(report.readings, cells=cells))


def shifted(report: Report, by: float) -> Report:
    """The same encoder on the same clusters, more invariant by so much in every cluster."""

    def move(cell: Cell) -> Cell:
        shares = np.array(cell.shares)
        if not shares.size:
            return cell
        shares[:, 0] += by * shares[:, 1]
        figure = cell.figure
        moved = replace(figure, value=figure.value + by, low=figure.low + by, high=figure.high + by)
        return replace(cell, figure=moved, shares=tuple(map(tuple, shares.tolist())))

    cells = tuple(move(cell) for cell in report.readings.cells)
    return replace(report, readings=replace(report.readings, cells=cells))


def test_a_difference_that_every_cluster_shows_is_seen_in_pairs_alone() -> None:
    other = shifted(REPORT, 0.01)
    paired = compared(REPORT, other).rows
    apart = compared(without_shares(REPORT), without_shares(other)).rows
    assert all(row.differences[0].is_claim and row.differences[0].is_paired for row in paired)
    assert all(abs((row.differences[0].value or 0) - 0.01) < 1e-9 for row in paired)
    assert not any(row.differences[0].is_claim or row.differences[0].is_paired for row in apart)


def test_equals_are_rarely_told_apart() -> None:
    twins = [compared(make_report(seed=2 * i), make_report(seed=2 * i + 1)).rows for i in range(5)]
    claims = [any(row.differences[0].is_claim for row in rows) for rows in twins]
    covered = [(d.low or 0) < 0 < (d.high or 0) for rows in twins for row in rows for d in row.differences]
    assert sum(claims) <= 1
    assert 0.85 < np.mean(covered) <= 1


def test_one_false_mark_in_a_column_is_as_rare_with_few_clusters() -> None:
    rng = np.random.default_rng(0)

    def noisy() -> Report:
        cells = tuple(
            replace(cell, shares=tuple(zip(rng.normal(0.5, 0.2, 20).tolist(), [1.0] * 20, strict=True)))
            for cell in REPORT.readings.cells
            if cell.metric == "nis_w" and cell.level == 3
        )
        return replace(REPORT, readings=replace(REPORT.readings, cells=cells))

    columns = [[row.differences[0] for row in compared(noisy(), noisy()).rows] for _ in range(120)]
    assert sum(any(d.is_claim for d in column) for column in columns) <= 12  # 6 are expected


def test_a_large_difference_is_claimed() -> None:
    rows = {row.factor: row.differences[0] for row in compared(REPORT, make_report(seed=1, gain=0.5)).rows}
    assert rows["gaussian_noise"].is_claim
    assert (rows["gaussian_noise"].low or 0) > 0.1


def test_the_table_and_the_page_name_every_encoder(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{name}.json" for name in "abc")
    others = named(make_report(seed=1, gain=0.5), source="runs/other"), make_report("dead", collapsed=True)
    for path, report in zip(paths, (REPORT, *others), strict=True):
        write_report(report, path)
    text = compare(paths, out=tmp_path / "page.html")
    words, read, head = (line for line in text.splitlines() if "simclr resnet18 droid (runs/simclr)" in line)
    assert re.match(r"- simclr resnet18 droid \(runs/simclr\): RISKY: \d+ risky, .*\d+ safe", words)
    assert read.startswith("| read off clean frames |")
    assert "| camera | .62 [.57, .67] | .62 [.57, .67] | - |" in text
    assert "simclr resnet18 droid (runs/simclr)" in head  # two of one name
    assert "dead minus simclr resnet18 droid (runs/simclr)" in head
    assert re.search(r"\| gaussian noise \| 3 \| INV \|.*\] \^ \| collapsed \|", text)
    assert "paired bootstrap" in text
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "▲ more" in page and words.partition(": RISKY: ")[2] in page
    assert "What a head reads from clean frames" in page
    assert "<script" not in page


def test_reports_for_different_tasks_are_said_to_be() -> None:
    assert REPORT.task is not None
    other = replace(REPORT, task=replace(REPORT.task, profile="navigation", sha256="other"))
    same, different = (to_text(compare_reports([REPORT, each], origins=["a", "b"])) for each in (REPORT, other))
    assert "different tasks" not in same
    assert "judge different tasks" in different and "navigation" in different


def test_few_clusters_make_no_claim() -> None:
    def few(report: Report) -> Report:
        cells = tuple(
            replace(cell, figure=replace(cell.figure, clusters=12), shares=cell.shares[:12])
            for cell in report.readings.cells
        )
        return replace(report, readings=replace(report.readings, cells=cells))

    rows = compared(few(REPORT), few(make_report(gain=0.3))).rows
    assert all(row.differences[0].reason == "too few clusters for an interval" for row in rows)
    assert not any(row.differences[0].is_claim for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: replace(r, data=replace(r.data, sha256="f" * 64)), "not made on the same frames (sha256: ddd"),
        (lambda r: replace(r, data=replace(r.data, n_evaluation=90)), "(n_evaluation: 500 and 90)"),
        (lambda r: replace(r, settings={"seed": 3}), "(seed: 0 and 3)"),
        (
            lambda r: replace(r, views=(replace(r.views[0], params={"gain": 0.1}), *r.views[1:])),
            "(brightness 1: {'gain': 0.8} and {'gain': 0.1})",
        ),
    ],
)
def test_reports_on_other_frames_are_refused(change: Callable[[Report], Report], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        compared(REPORT, change(REPORT))


@pytest.mark.parametrize("count", [1, 5])
def test_too_few_or_too_many_are_refused(count: int) -> None:
    with pytest.raises(InputError, match=f"got {count} reports to compare; pass 2 to 4"):
        compared(*[REPORT] * count)
