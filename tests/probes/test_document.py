"""The JSON of a probe report: what is written is read back, other files are refused, the schema is the records'."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from probe_report_kit import make_report

from robossl.errors import InputError
from robossl.probes import result
from robossl.probes.document import plain, read_report, to_json, write_report
from robossl.probes.result import Figure, Report
from robossl.probes.schema import json_schema

SMALL = make_report(factors=("hue", "rotation", "hflip"))
COLLAPSED = make_report("dead encoder", collapsed=True, labels=())


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


def test_a_need_too_few_is_refused(tmp_path: Path) -> None:
    content = json.loads(to_json(SMALL))
    content["task"]["needs"]["hue"] = ["INV"]
    (tmp_path / "r.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"task\.needs\.hue must be 5 needs, got \[\"INV\"\]"):
        read_report(tmp_path / "r.json")


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
