"""The JSON, the page and the gate of a probe report, on made-up reports that look real."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image
from probe_report_kit import FACTORS, frame, make_report, named

from robossl.errors import InputError
from robossl.probes import result
from robossl.probes.check import FailOn, check, gate
from robossl.probes.document import plain, read_report, to_json, write_report
from robossl.probes.report.lookup import Lookup
from robossl.probes.report.page import write_page
from robossl.probes.report.pictures import TakenFor
from robossl.probes.report.plane import make_plane
from robossl.probes.result import Figure, Report, Word
from robossl.probes.schema import json_schema

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
    taken = TakenFor("gaussian_noise", 3, ((frame(1), frame(2), frame(3)),))
    write_page(named(REPORT, name=EVIL), out / "healthy", sheet=sheet.getvalue(), neighbours=[taken])
    write_page(COLLAPSED, out / "collapsed")
    return out


# JSON


@pytest.mark.parametrize("report", [SMALL, COLLAPSED, replace(SMALL, task=None, verdicts=(), word=None)])
def test_what_is_written_is_read_back(tmp_path: Path, report: Report) -> None:
    write_report(report, tmp_path / "new" / "report.json")
    assert read_report(tmp_path / "new" / "report.json") == report
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.json"]


def test_a_figure_that_is_no_number_becomes_null_with_a_reason() -> None:
    assert plain(Figure(math.nan, 0.1, 0.2, 5, 5)) == {
        "value": None,
        "low": None,
        "high": None,
        "n": 5,
        "clusters": 5,
        "reason": "not a finite number",
    }
    assert plain(Figure(0.5, math.nan, math.inf, 5, 5))["value"] == 0.5
    assert plain(Figure(0.5, math.nan, math.inf, 5, 5))["reason"] == "not a finite number"
    assert plain(Figure(math.nan, None, None, 5, 5, "no room"))["reason"] == "no room"


def test_a_row_of_numbers_that_are_none_is_no_row(tmp_path: Path) -> None:
    readings = COLLAPSED.readings
    decoding = replace(readings.decodings[0], shuffled=(math.nan, 0.1))
    cell = replace(readings.cells[0], shares=((math.nan, 0.0),))
    health = replace(readings.health, spectrum=(math.nan,), alpha=math.inf)
    spoiled = replace(readings, health=health, cells=(cell,), decodings=(decoding,))
    write_report(replace(COLLAPSED, readings=spoiled), tmp_path / "r.json")
    found = read_report(tmp_path / "r.json").readings
    assert (found.health.spectrum, found.health.alpha) == ((), None)
    assert (found.decodings[0].shuffled, found.cells[0].shares) == (None, ())


def test_numbers_of_numpy_are_numbers() -> None:
    figure = plain(Figure(np.float32(0.5), np.float64(0.25), np.float64(1), np.int64(5), np.int32(5)))
    assert json.dumps(list(figure.values())) == "[0.5, 0.25, 1.0, 5, 5, null]"


def spoil(change: Callable[[Any], object]) -> str:
    content = json.loads(to_json(SMALL))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a probe report"),
        ("[]", "is not a probe report"),
        ('{"created": ""}', "is not a probe report (no 'schema')"),
        ('{"schema": NaN}', "it holds NaN, which is not JSON"),
        (lambda c: c.update(schema="robossl.probe/2"), "has schema 'robossl.probe/2', this version reads"),
        (lambda c: c.pop("data"), "data is missing"),
        (lambda c: c["data"].update(colour="red"), "data.colour is not known"),
        (lambda c: c["data"].update(mask=1), "data.mask must be true or false, got 1"),
        (lambda c: c["data"].update(resolution=[1]), "data.resolution must be a list of 2, got [1]"),
        (lambda c: c["views"][3].update(level="3"), 'views[3].level must be a whole number, got "3"'),
        (lambda c: c["encoder"].update(kind="x"), "encoder.kind must be 'run' or 'onnx' or"),
        (lambda c: c["task"]["needs"].update(hue="INV"), 'task.needs.hue must be a list, got "INV"'),
        (lambda c: c["readings"].update(cells={}), "readings.cells must be a list, got {}"),
    ],
)
def test_another_file_is_refused_in_one_line(
    tmp_path: Path, content: str | Callable[[Any], object], message: str
) -> None:
    (tmp_path / "r.json").write_text(content if isinstance(content, str) else spoil(content))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_report(tmp_path / "r.json")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_said() -> None:
    with pytest.raises(InputError, match=r"no/report\.json is not a probe report"):
        read_report(Path("no/report.json"))


# The published schema


def published() -> dict[str, Any]:
    text = files("robossl.probes").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def test_the_published_schema_is_that_of_the_records() -> None:
    jsonschema.Draft202012Validator.check_schema(published())
    assert published() == json_schema(), "python -m robossl.probes.schema > robossl/probes/schema.json"
    for name, definition in published()["$defs"].items():
        fields = dataclasses.fields(getattr(result, name))
        assert list(definition["properties"]) == [field.name for field in fields]
        assert definition["additionalProperties"] is False


@pytest.mark.parametrize("report", [SMALL, COLLAPSED, replace(SMALL, task=None, verdicts=(), word=None)])
def test_reports_are_valid(report: Report) -> None:
    jsonschema.validate(json.loads(to_json(report)), published(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["verdicts"][0]["figure"].update(value=None),  # a null without its reason
        lambda c: c["verdicts"][0]["figure"].update(low=None),
        lambda c: c["verdicts"][0].update(word="FINE"),
        lambda c: c["views"][0].update(level=6),
        lambda c: c.update(schema="robossl.probe/2"),
        lambda c: c.pop("schema"),
    ],
)
def test_wrong_reports_are_not_valid(change: Callable[[Any], object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(spoil(change)), published(), cls=jsonschema.Draft202012Validator)


# The page


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


def test_what_stays_where_it_must_move_is_marked() -> None:
    look = Lookup(REPORT)
    assert look.is_over_invariant("rotation", 3)
    assert not look.is_over_invariant("brightness", 1)  # as high, but the task wants it
    assert not look.is_over_invariant("scale", 3)  # needed, and not high
    assert not Lookup(COLLAPSED).is_over_invariant("rotation", 3)
    assert look.needs("crop") == "INV/EQUI"
    assert (look.shown_level("hue"), look.shown_level("hflip")) == (3, 1)


def test_the_plane_holds_every_factor_or_says_why_not() -> None:
    plane, empty = make_plane(Lookup(REPORT)), make_plane(Lookup(COLLAPSED))
    assert {dot.factor for dot in plane.dots} == set(FACTORS)
    assert plane.missing == ()
    assert empty.dots == ()
    assert dict(empty.missing)["hue"] == "the encoder has collapsed"


# The gate


def with_word(word: Word) -> Report:
    return replace(REPORT, word=word)


@pytest.mark.parametrize(
    ("word", "fail_on", "code"),
    [
        ("SAFE", "inconclusive", 0),
        ("SAFE IF TRAINED WITH IT", "inconclusive", 0),
        ("INCONCLUSIVE", "inconclusive", 12),
        ("INCONCLUSIVE", "risky", 0),
        ("RISKY", "inconclusive", 10),
        ("RISKY", "risky", 10),
        ("RISKY", "unusable", 0),
        ("UNUSABLE", "inconclusive", 11),
        ("UNUSABLE", "risky", 11),
        ("UNUSABLE", "unusable", 11),
    ],
)
def test_the_gate_ends_with_the_code_of_the_verdict(word: Word, fail_on: FailOn, code: int) -> None:
    said = gate(with_word(word), fail_on=fail_on, origin="r.json")
    assert said.code == code
    assert said.text.startswith("FAIL" if code else "PASS")


def test_the_gate_names_what_decided(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path / "r.json")
    lines = check(tmp_path / "r.json", fail_on="risky").text.splitlines()
    assert lines[0] == "FAIL: simclr resnet18 droid is RISKY for pose-estimation (thresholds uncalibrated)"
    assert lines[1].split()[0] == "RISKY"
    assert any(line.split()[1] == "rotation" and "over-invariant" in line for line in lines[1:])
    assert not any("saturation" in line for line in lines)


def test_the_gate_refuses_a_report_without_verdict() -> None:
    with pytest.raises(InputError, match="was made without a task and has no verdict"):
        gate(replace(SMALL, task=None, word=None), fail_on="risky", origin="r.json")
