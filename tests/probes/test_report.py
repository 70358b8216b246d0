"""The page of a probe report, on made-up reports that look real."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from probe_report_kit import FACTORS, frame, make_report, named

from robossl.measure.figures import missing
from robossl.probes.compare import compare_reports
from robossl.probes.report.compare_page import write_compare_page
from robossl.probes.report.lookup import ReportIndex
from robossl.probes.report.page import write_page
from robossl.probes.report.pictures import RetrievalErrors
from robossl.probes.report.plane import make_plane
from robossl.probes.result import Verdict

EVIL = "<script>alert('x')</script>\"&"
REPORT = make_report()
SMALL = make_report(factors=("hue", "rotation", "hflip"))
COLLAPSED = make_report("dead encoder", collapsed=True, labels=())


class Page(HTMLParser):
    """Collects what a browser would fetch or run, the anchors, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self.links += [value for name in ("src", "href", "xlink:href") if (value := values.get(name))]
        self.ids += [value for value in [values.get("id")] if value]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a healthy and of a collapsed encoder."""
    out = tmp_path_factory.mktemp("pages")
    sheet = io.BytesIO()
    Image.fromarray(frame(0)).save(sheet, "PNG")
    taken = RetrievalErrors("gaussian_noise", 3, ((frame(1), frame(2), frame(3)),))
    write_page(named(REPORT, name=EVIL), out / "healthy", sheet=sheet.getvalue(), neighbours=[taken])
    write_page(COLLAPSED, out / "collapsed")
    return out


def test_the_page_needs_no_network_and_runs_nothing(pages: Path) -> None:
    for name in ("healthy", "collapsed"):
        page = Page((pages / name / "report.html").read_text(encoding="utf-8"))
        assert {link.partition(":")[0].partition(",")[0] for link in page.links} <= {"data", *filter_anchors(page)}
        assert not {"script", "iframe", "object", "embed"} & set(page.tags)
        assert set(filter_anchors(page)) <= {f"#{each}" for each in page.ids}
        assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", (pages / name / "report.html").read_text())


def filter_anchors(page: Page) -> list[str]:
    return [link for link in page.links if link.startswith("#")]


def test_every_factor_has_its_verdict_with_word_and_evidence(pages: Path) -> None:
    page = Page((pages / "healthy" / "report.html").read_text(encoding="utf-8"))
    assert EVIL in page.text  # as text, not as a tag
    assert "RISKY for pose-estimation" in page.text
    for factor in FACTORS:
        if factor != "saturation":
            assert f"{factor.replace('_', ' ')}:" in page.text
    assert "Not asked by this task: saturation" in page.text
    assert "over-invariant, the change is decoded at 0.06 where pixels reach .75" in page.text
    assert "500 frames in 60 clusters" in page.text
    assert "uncalibrated" in page.text
    assert "hflip: a 6-DoF pose is not defined under a horizontal flip" in page.text
    assert page.text.count("✗ found") == 1


def test_a_collapsed_encoder_has_no_figure(pages: Path) -> None:
    page = Page((pages / "collapsed" / "report.html").read_text(encoding="utf-8"))
    cells = sum(len(row[3]) for row in FACTORS.values())
    assert len(re.findall(r">collapsed<", (pages / "collapsed" / "report.html").read_text())) == cells
    assert "UNUSABLE for pose-estimation" in page.text
    assert "Every factor:" in page.text
    assert "the frames have no labels that the profile reads" in page.text


def test_what_is_kept_stands_beside_what_it_is_a_share_of(pages: Path) -> None:
    page = (pages / "healthy" / "report.html").read_text(encoding="utf-8")
    table = page[page.index('id="heads"') : page.index("Verdicts for")]
    assert table.count(".62 [.57, .67]") == 3, "this encoder and two references"


def test_what_is_read_from_changed_frames_stands_beside_the_references(tmp_path: Path) -> None:
    report = make_report(factors=("hue", "rotation"), labels=("place",))
    write_page(report, tmp_path / "own")
    page = (tmp_path / "own" / "report.html").read_text(encoding="utf-8")
    drawing = page[page.index('id="changed"') : page.index("Verdicts for")]
    assert "Share of place that is left: rotation " in drawing
    kept = [replace(each, figure=replace(each.figure, value=-0.9)) for each in report.references["pixels"].retentions]
    assert kept, "the reference has heads too"
    pixels = replace(report.references["pixels"], retentions=tuple(kept))
    write_page(replace(report, references={**report.references, "pixels": pixels}), tmp_path / "other")
    other = (tmp_path / "other" / "report.html").read_text(encoding="utf-8")
    assert other[other.index('id="changed"') : other.index("Verdicts for")] != drawing, "the reference is drawn"


def test_no_text_of_a_report_becomes_html(tmp_path: Path) -> None:
    report = named(make_report(EVIL, labels=(EVIL,), factors=("hue", "hflip")), source=EVIL, layer=EVIL)
    assert report.task is not None
    verdicts = tuple(replace(each, sentence=EVIL, metric=EVIL) for each in report.verdicts)
    report = replace(
        report,
        data=replace(report.data, name=EVIL, cluster_key=EVIL),
        task=replace(report.task, profile=EVIL, about=EVIL),
        settings={"command": EVIL, EVIL: EVIL},
        verdicts=verdicts,
    )
    write_page(report, tmp_path)
    write_compare_page(compare_reports([report, report], origins=["a", "b"]), tmp_path / "compare.html")
    for name, times in (("report.html", 15), ("compare.html", 4)):
        page = Page((tmp_path / name).read_text(encoding="utf-8"))
        assert "script" not in page.tags
        assert page.text.count(EVIL) >= times


def test_pictures_lie_beside_the_page(pages: Path) -> None:
    for name in ("heatmap.png", "plane.png"):
        with Image.open(pages / "healthy" / name) as picture:
            assert picture.width == 1000


def test_equal_reports_give_equal_pages(tmp_path: Path) -> None:
    first, second = (write_page(SMALL, tmp_path / name)[0].read_bytes() for name in "ab")
    assert first == second


def test_a_report_without_a_task_says_how_to_get_verdicts(tmp_path: Path) -> None:
    page = write_page(replace(SMALL, task=None, verdicts=(), word=None), tmp_path)[0].read_text(encoding="utf-8")
    assert "--profile PROFILE" in page


def test_what_was_left_out_is_named_with_its_reason(tmp_path: Path) -> None:
    why = ("left out", "this run was asked for other factors"), ("not measured", "recorded scenes cannot be changed")
    more = tuple(
        Verdict(name, None, "INV", "INCONCLUSIVE", metric, missing(reason), {}, f"{name}: {metric}: {reason}")
        for name, (metric, reason) in zip(("white_balance", "table_color"), why, strict=True)
    )
    safe = tuple(replace(each, word="SAFE") for each in SMALL.verdicts)
    write_page(replace(SMALL, verdicts=(*safe, *more), word="INCONCLUSIVE"), tmp_path)
    text = Page((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "white balance: left out: this run was asked for other factors" in text
    assert "table color: not measured: recorded scenes cannot be changed" in text
    assert "the task asks for factors that this run left out" in text
    write_page(replace(SMALL, verdicts=more[1:], word=None), tmp_path)
    assert "these frames can show no factor" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_name_may_hold_dollars(tmp_path: Path) -> None:
    write_page(named(SMALL, name="x$_$y{"), tmp_path)
    assert "x$_$y{" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_stays_where_it_must_move_is_marked() -> None:
    index = ReportIndex(REPORT)
    assert index.is_over_invariant("rotation", 3)
    assert not index.is_over_invariant("brightness", 1)  # as high, but the task wants it
    assert not index.is_over_invariant("scale", 3)  # needed, and not high
    assert not ReportIndex(COLLAPSED).is_over_invariant("rotation", 3)
    assert index.needs("crop") == "INV/EQUI"
    assert (index.shown_level("hue"), index.shown_level("hflip")) == (3, 1)


def test_the_plane_holds_every_factor_or_says_why_not() -> None:
    plane, empty = make_plane(ReportIndex(REPORT)), make_plane(ReportIndex(COLLAPSED))
    assert {dot.factor for dot in plane.dots} == set(FACTORS)
    assert plane.missing == ()
    assert empty.dots == ()
    assert dict(empty.missing)["hue"] == "the encoder has collapsed"
