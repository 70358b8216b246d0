"""The gate on a probe report: its exit codes, and what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from probe_report_kit import make_report

from robossl.errors import InputError
from robossl.probes.check import FailOn, check, gate
from robossl.probes.document import write_report
from robossl.probes.result import Report, Word

REPORT = make_report()
SMALL = make_report(factors=("hue", "rotation", "hflip"))


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


def test_a_report_whose_word_is_not_that_of_its_verdicts_is_refused(tmp_path: Path) -> None:
    write_report(with_word("SAFE"), tmp_path / "r.json")
    with pytest.raises(InputError, match="says SAFE, its verdicts RISKY; probe the encoder again"):
        check(tmp_path / "r.json")


def test_frames_that_show_nothing_of_the_task_are_said() -> None:
    with pytest.raises(InputError, match="its frames can show no factor that pose-estimation asks for; probe on other"):
        gate(replace(SMALL, verdicts=(), word=None), fail_on="risky", origin="r.json")


def test_the_gate_refuses_a_report_without_verdict() -> None:
    with pytest.raises(InputError, match="was made without a task and has no verdict"):
        gate(replace(SMALL, task=None, word=None), fail_on="risky", origin="r.json")
