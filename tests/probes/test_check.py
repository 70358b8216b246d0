"""The gate on a probe report: its exit codes, and what it prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from probe_report_kit import make_report

from robossl.errors import InputError
from robossl.probes.check import FailOn, apply_gate, check
from robossl.probes.document import write_report
from robossl.probes.result import CleanHead, Figure, Readings, Report, Word

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
    said = apply_gate(with_word(word), fail_on=fail_on, origin="r.json")
    assert said.code == code
    assert said.text.startswith("FAIL" if code else "PASS")


def test_the_gate_names_what_decided(tmp_path: Path) -> None:
    write_report(REPORT, tmp_path / "r.json")
    lines = check(tmp_path / "r.json", fail_on="risky").text.splitlines()
    assert lines[0] == "FAIL: simclr resnet18 droid is RISKY for pose-estimation (thresholds uncalibrated)"
    assert REPORT.encoder.source in lines[1] and REPORT.encoder.sha256[:12] in lines[1]
    assert REPORT.data.name in lines[2] and str(REPORT.data.n_evaluation) in lines[2]
    judged = [line for line in lines if line.split()[0] in ("RISKY", "INCONCLUSIVE")]
    assert judged[0].split()[0] == "RISKY"
    assert any(line.split()[2].startswith("rotation") and "over-invariant" in line for line in judged)
    assert not any("saturation" in line for line in lines)
    write_report(REPORT, tmp_path / "probe" / "report.json")
    assert check(tmp_path / "probe", fail_on="risky").text.splitlines() == lines, "the folder of a report stands for it"


def test_the_gate_says_where_an_encoder_reads_less_than_what_has_learned_nothing() -> None:
    def reading(low: float, high: float) -> Readings:
        heads = (CleanHead("point", Figure((low + high) / 2, low, high, 200, 200)),)
        return replace(SMALL.readings, clean_heads=heads)

    references = {"pixels": reading(0.3, 0.65), "random_init": reading(0.8, 0.9)}
    report = replace(SMALL, readings=reading(0.5, 0.6), references=references)
    (line,) = (
        line for line in apply_gate(report, fail_on="risky", origin="r").text.splitlines() if "point read" in line
    )
    assert line.endswith(".55 [.50, .60] (pixels .47 [.30, .65], random init .85 [.80, .90]); better from random init")


def test_what_was_left_out_is_one_line() -> None:
    gone = [replace(v, metric="left out", word="INCONCLUSIVE") for v in SMALL.verdicts if v.level is None]
    report = replace(SMALL, verdicts=tuple(gone), word="INCONCLUSIVE")
    lines = apply_gate(report, fail_on="inconclusive", origin="r").text.splitlines()
    assert [line for line in lines if "left out" in line] == ["  left out: hue, rotation, hflip"]


def test_a_report_whose_word_is_not_that_of_its_verdicts_is_refused(tmp_path: Path) -> None:
    write_report(with_word("SAFE"), tmp_path / "r.json")
    with pytest.raises(InputError, match="says SAFE, its verdicts RISKY; probe the encoder again"):
        check(tmp_path / "r.json")


def test_frames_that_show_nothing_of_the_task_are_said() -> None:
    with pytest.raises(InputError, match="its frames can show no factor of pose-estimation; probe on other"):
        apply_gate(replace(SMALL, verdicts=(), word=None), fail_on="risky", origin="r.json")


def test_the_gate_refuses_a_report_without_verdict() -> None:
    with pytest.raises(InputError, match="was made without a task and has no verdict"):
        apply_gate(replace(SMALL, task=None, word=None), fail_on="risky", origin="r.json")
