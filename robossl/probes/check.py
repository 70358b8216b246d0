"""`robossl probe check`: let a deployment pipeline accept or refuse an encoder by the verdicts of its probe report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from robossl.errors import InputError
from robossl.probes.document import read_report
from robossl.probes.evidence import two_digits
from robossl.probes.grouping import Group, group_verdicts
from robossl.probes.meaning import describe_record
from robossl.probes.report.words import describe_backbone, describe_clean_heads, list_factors
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Report, TaskNeeds, Word
from robossl.probes.verdict import UNCALIBRATED, find_worst_word

FailOn = Literal["unusable", "risky", "inconclusive"]

# Verdicts from good (0) to bad (3). The check fails on the verdict that `--fail-on` names and on all worse ones.
SEVERITY: dict[Word, int] = {"SAFE": 0, "SAFE IF TRAINED WITH IT": 0, "INCONCLUSIVE": 1, "RISKY": 2, "UNUSABLE": 3}
EXIT_CODES: dict[Word, int] = {"RISKY": 10, "UNUSABLE": 11, "INCONCLUSIVE": 12}


class Gate(NamedTuple):
    """Result of the check: the exit code of the process and the text to print."""

    code: int
    text: str


def check(report: Path, *, fail_on: FailOn = "inconclusive") -> Gate:
    """Read a report; return a `Gate` that says whether the probed encoder may be deployed for the report's task.

    Args:
        report: The report.json that `robossl probe run` wrote, or its folder.
        fail_on: The mildest verdict with which an encoder fails. With "inconclusive", an encoder passes only if every
            factor is SAFE or SAFE IF TRAINED WITH IT, and if the run left out no factor. A factor that cannot be
            measured on these frames is listed but does not count.

    Raises:
        InputError: the file is not a report, the report has no task or no verdict, or its overall verdict is not the
            worst of its verdicts.
    """
    found = read_report(report)
    if found.task and found.word != find_worst_word(found.verdicts):
        raise InputError(
            f"{report} says {found.word}, its verdicts {find_worst_word(found.verdicts)}; probe the encoder again"
        )
    return apply_gate(found, fail_on=fail_on, origin=str(report))


def apply_gate(report: Report, *, fail_on: FailOn, origin: str) -> Gate:
    """Return the exit code and the text to print; `origin` names the report in error messages.

    Code 0 is a pass. If the encoder fails, the code is 10 (risky), 11 (unusable) or 12 (inconclusive).

    Raises:
        InputError: the report has no verdict.
    """
    word, task = report.word, report.task
    if task is None:
        raise InputError(f"{origin} was made without a task and has no verdict; probe again with --profile")
    if word is None:
        raise InputError(
            f"{origin} has no verdict: its frames can show no factor of {task.profile}; probe on other --data, such as "
            "env:robossl/Push-v0"
        )
    limits: dict[FailOn, Word] = {"unusable": "UNUSABLE", "risky": "RISKY", "inconclusive": "INCONCLUSIVE"}
    fails = SEVERITY[word] >= SEVERITY[limits[fail_on]]
    groups = [group for group in group_verdicts(report.verdicts) if group.badge != "SAFE"]
    head = f"{'FAIL' if fails else 'PASS'}: {report.encoder.name} is {word} for {task.profile}"
    head += "" if task.calibrated else " (thresholds uncalibrated)"
    about = (*_describe(report, task), *describe_clean_heads(report), *describe_backbone(report.random_backbone))
    lines = [head, *(f"  {line}" for line in about), *(_line(each, task) for each in groups)]
    if not fails and SEVERITY[word]:
        lines.append(f"It passes because --fail-on is {fail_on}.")
    return Gate(EXIT_CODES[word] if fails else 0, "\n".join(lines))


def _line(group: Group, task: TaskNeeds) -> str:
    if group.badge in (LEFT_OUT, NOT_MEASURED):
        return f"  {group.badge}: {', '.join(group.factors)}"
    if len(group.verdicts) > 1:
        meant = describe_record(group.badge, task.calibration)
        return (
            f"  {group.badge:<12} {group.needs:<4} {list_factors(group)}: {group.cause}{f' ({meant})' if meant else ''}"
        )
    (verdict,) = group.verdicts
    sentence = verdict.sentence.removesuffix(UNCALIBRATED)
    return f"  {verdict.word:<12} {verdict.need:<4} {sentence} [{verdict.metric} {two_digits(verdict.figure)}]"


def _describe(report: Report, task: TaskNeeds) -> list[str]:
    """Return lines that name the encoder, the frames and the task, so that a user notices a wrong report."""
    encoder, data = report.encoder, report.data
    facts = [
        f"encoder {encoder.source}, sha256 {encoder.sha256[:12]}; probed {report.created}",
        f"{data.n_evaluation} frames of {data.name} in {data.num_clusters} clusters; labels: "
        f"{', '.join(data.labels) or 'none'}; profile {task.sha256[:12]}",
    ]
    return [*facts, task.about] if task.about else facts
