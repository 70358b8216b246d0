"""Factors that are undecided for one cause share a line, and what has no verdict wears a badge of its own."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path

import pytest
from probe_report_kit import make_report
from probes_kit import HEALTHY, figure, profile

from robossl.measure.figures import missing
from robossl.probes.check import apply_gate
from robossl.probes.compare import compare_reports, to_text
from robossl.probes.document import read_report, write_report
from robossl.probes.grouping import group_verdicts
from robossl.probes.output import summary
from robossl.probes.report.compare_page import write_compare_page
from robossl.probes.report.page import write_page
from robossl.probes.result import (
    LEFT_OUT,
    NOT_MEASURED,
    UNKNOWN,
    Backbone,
    Cell,
    Figure,
    ProbeHealth,
    Readings,
    Report,
    Retention,
    Verdict,
)
from robossl.probes.verdict import find_worst_word, judge

TWENTY = [f"f{i}" for i in range(20)]
BASE = make_report(factors=("hue", "rotation", "hflip"))


def unread(score: float) -> Figure:
    why = f"task not readable: score {score:.2f} above chance on clean frames, its lower bound must be 0.15"
    return missing(why, n=500, clusters=60)


def judged(
    kept: list[Figure] | None, *, need: str = "INV", health: ProbeHealth = HEALTHY, clusters: int = 60
) -> tuple[Verdict, ...]:
    cells = tuple(
        Cell(name, 1, metric, replace(figure(0.6, 0.7), clusters=clusters))
        for name in TWENTY
        for metric in ("nis_w", "r1")
    )
    head = "same" if need == "INV" else "clean"
    found = [Retention("point", name, 1, head, each, 0.1, 0.1) for name, each in zip(TWENTY, kept or [], strict=False)]
    readings = Readings("x", health, cells, (), tuple(found))
    return judge(readings, {}, profile(dict.fromkeys(TWENTY, need)))


def report_of(verdicts: tuple[Verdict, ...]) -> Report:
    return replace(BASE, verdicts=verdicts, word=find_worst_word(verdicts))


CAUSES = {
    "a label that is not read": (judged([unread(0.01 * i) for i in range(20)]), "point is not surely read off clean"),
    "no label": (judged(None, need="EQUI"), "no label of the task can test"),
    "few clusters": (judged([figure(0.8 + i / 100, 0.99, clusters=9) for i in range(20)]), "9 independent clusters"),
    "wide intervals": (judged([figure(0.7 + i / 100, 0.99) for i in range(20)]), "more frames are needed to tell"),
    "no label, wide": (judged(None), "a label or more frames are needed to tell"),
    "collapsed": (judged(None, health=replace(HEALTHY, flags=("collapsed",))), "the features have collapsed"),
}


@pytest.mark.parametrize(("verdicts", "cause"), CAUSES.values(), ids=CAUSES)
def test_twenty_factors_of_one_cause_are_one_line(verdicts: tuple[Verdict, ...], cause: str, tmp_path: Path) -> None:
    (group,) = group_verdicts(verdicts)
    assert group.factors == TWENTY and cause in group.cause
    report = report_of(verdicts)
    write_report(report, tmp_path / "r.json")
    assert read_report(tmp_path / "r.json").verdicts == verdicts, "each factor keeps its own sentence and figures"
    for lines in (summary(report), apply_gate(report, fail_on="inconclusive", origin="r").text.splitlines()):
        (line,) = (line for line in lines if cause in line)
        assert all(re.search(rf"\b{name}\b", line) for name in TWENTY)
    write_page(report, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    strip = page[page.index('<ol class="strip-list">') : page.index("</ol>")]
    assert strip.count('<li class="') == 1 and cause in strip
    assert "20 factors:" in strip or "collapsed" in cause


def test_a_decision_stands_alone_and_the_worst_come_first() -> None:
    kept = [figure(0.1, 0.2), figure(0.95, 1), unread(0.1), unread(0.2), figure(0.1, 0.3), *[figure(0.95, 1)] * 15]
    groups = group_verdicts(judged(kept))
    assert [group.badge for group in groups[:3]] == ["RISKY", "RISKY", "INCONCLUSIVE"]
    assert groups[2].factors == ["f2", "f3"] and all(group.badge == "SAFE" for group in groups[3:])
    assert all(len(group.verdicts) == 1 for group in (*groups[:2], *groups[3:]))


def test_two_causes_are_two_lines() -> None:
    kept = [unread(0.1)] * 10 + [figure(0.7, 0.99)] * 10
    assert [group.factors for group in group_verdicts(judged(kept))] == [TWENTY[:10], TWENTY[10:]]


def test_a_report_that_knows_no_causes_has_a_line_for_each_factor() -> None:
    old = tuple(replace(verdict, cause="") for verdict in judged([unread(0.1)] * 20))
    assert [group.factors for group in group_verdicts(old)] == [[name] for name in TWENTY]


def without_verdict(name: str, metric: str, why: str) -> Verdict:
    return Verdict(name, None, "INV", "INCONCLUSIVE", metric, missing(why), {}, f"{name}: {metric}: {why}", why)


NONE = (
    without_verdict("white_balance", LEFT_OUT, "this run was asked for other factors"),
    without_verdict("gamma", LEFT_OUT, "this run was asked for other factors"),
    without_verdict("table_color", NOT_MEASURED, "recorded scenes cannot be changed"),
    without_verdict("latency", NOT_MEASURED, "single pictures have no past"),
)


def test_what_has_no_verdict_wears_its_own_badge(tmp_path: Path) -> None:
    safe = tuple(replace(each, word="SAFE") for each in BASE.verdicts)
    report = replace(BASE, verdicts=(*safe, *NONE), word="INCONCLUSIVE")
    write_page(report, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    strip = page[page.index('<ol class="strip-list">') : page.index("</ol>")]
    assert "INCONCLUSIVE" not in strip
    assert strip.count('<li class="left-out"><span class="chip left-out">') == 1
    assert strip.count('<li class="unmeasured"><span class="chip unmeasured">') == 2, "each reason once"
    assert "<b>2 factors:</b> left out" in strip and "white balance, gamma" in strip
    said = summary(report)
    assert "  left out: white_balance, gamma: this run was asked for other factors" in said
    assert "  not measured: latency: single pictures have no past" in said
    both = compare_reports([report, replace(report, verdicts=(*safe, *NONE))], origins=["a", "b"])
    write_compare_page(both, tmp_path / "both.html")
    assert "left out" not in to_text(both).split("| factor")[1], "they are in neither report"


def test_a_factor_that_was_left_out_of_one_report_is_so_in_the_comparison(tmp_path: Path) -> None:
    gone = replace(BASE.verdicts[0], level=None, metric=LEFT_OUT, word="INCONCLUSIVE")
    other = replace(BASE, verdicts=(gone, *(v for v in BASE.verdicts if v.factor != gone.factor)))
    both = compare_reports([BASE, other], origins=["a", "b"])
    (row,) = (row for row in both.rows if row.factor == gone.factor)
    assert row.words[1] == LEFT_OUT and row.words[0] != LEFT_OUT
    write_compare_page(both, tmp_path / "both.html")
    assert "chip left-out" in (tmp_path / "both.html").read_text(encoding="utf-8")


def test_a_view_whose_label_nobody_knows_is_told_once_and_not_as_inconclusive(tmp_path: Path) -> None:
    unknown = missing(f"{UNKNOWN}: no camera pose shows the mirrored scene", n=500, clusters=60)
    verdicts = tuple(
        replace(v, metric=NOT_MEASURED, word="INCONCLUSIVE", figure=unknown) if v.factor == "hflip" else v
        for v in BASE.verdicts
    )
    write_page(replace(BASE, verdicts=verdicts), tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    strip = page[page.index('<ol class="strip-list">') : page.index("</ol>")]
    assert strip.count("no camera pose shows the mirrored scene") == 1
    assert strip.count('<li class="unmeasured">') == 1


@pytest.mark.parametrize(
    ("known_from", "says"),
    [
        ("card", "the encoder's own backbone"),
        ("option", "--input.backbone names"),
        ("metadata", "metadata names"),
        ("file name", "the name of the file"),
        ("stand-in", "in place of the encoder's own backbone, which is not known"),
    ],
)
def test_the_network_of_the_random_weights_is_said_everywhere(known_from: str, says: str, tmp_path: Path) -> None:
    backbone = Backbone("resnet18", known_from)  # type: ignore[arg-type]
    report = replace(BASE, random_backbone=backbone)
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path).random_backbone == backbone
    for lines in (summary(report), apply_gate(report, fail_on="risky", origin="r").text.splitlines()):
        assert any("weights of resnet18" in line and says in line for line in lines)
    write_page(report, tmp_path)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Random weights" in page and says in html.unescape(page)
    write_report(BASE, tmp_path / "old.json")
    assert read_report(tmp_path / "old.json").random_backbone is None
