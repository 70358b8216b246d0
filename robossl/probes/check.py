"""`robossl probe check`: a gate for a deployment pipeline, by the verdicts of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from robossl.errors import InputError
from robossl.probes.document import read_report
from robossl.probes.evidence import two_digits
from robossl.probes.report.words import heads_said
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Report, Task, Verdict, Word
from robossl.probes.verdict import UNCALIBRATED, overall

FailOn = Literal["unusable", "risky", "inconclusive"]

# From bad to worse: `--fail-on` names the first that fails.
SEVERITY: dict[Word, int] = {"SAFE": 0, "SAFE IF TRAINED WITH IT": 0, "INCONCLUSIVE": 1, "RISKY": 2, "UNUSABLE": 3}
EXIT_CODES: dict[Word, int] = {"RISKY": 10, "UNUSABLE": 11, "INCONCLUSIVE": 12}


class Gate(NamedTuple):
    """The exit code, and what is printed."""

    code: int
    text: str


def check(report: Path, *, fail_on: FailOn = "inconclusive") -> Gate:
    """Read a report and say whether its encoder may be deployed for its task.

    Args:
        report: What `robossl probe run` wrote, or the folder it wrote to.
        fail_on: The mildest verdict that fails: inconclusive (all that is not shown to be safe, what the run left out
            too; what these frames cannot show is listed and does not count), risky or unusable.

    Raises:
        InputError: no report, or one without a task.
    """
    found = read_report(report)
    if found.task and found.word != overall(found.verdicts):
        raise InputError(f"{report} says {found.word}, its verdicts {overall(found.verdicts)}; probe the encoder again")
    return gate(found, fail_on=fail_on, origin=str(report))


def gate(report: Report, *, fail_on: FailOn, origin: str) -> Gate:
    """Code 0 where the verdict passes, else 10 risky, 11 unusable, 12 inconclusive.

    Raises:
        InputError: the report has no verdict.
    """
    word, task = report.word, report.task
    if task is None:
        raise InputError(f"{origin} was made without a task and has no verdict; probe again with --profile")
    if word is None:
        raise InputError(
            f"{origin} has no verdict: its frames can show no factor that {task.profile} asks for; probe on other "
            "--data, such as env:robossl/Push-v0"
        )
    limits: dict[FailOn, Word] = {"unusable": "UNUSABLE", "risky": "RISKY", "inconclusive": "INCONCLUSIVE"}
    fails = SEVERITY[word] >= SEVERITY[limits[fail_on]]
    whole = [v for v in report.verdicts if v.level is None and v.need != "-" and v.word != "SAFE"]
    noted = [v for v in whole if v.metric not in (LEFT_OUT, NOT_MEASURED)]
    noted.sort(key=lambda verdict: -SEVERITY[verdict.word])
    head = f"{'FAIL' if fails else 'PASS'}: {report.encoder.name} is {word} for {task.profile}"
    head += "" if task.calibrated else " (thresholds uncalibrated)"
    lines = [head, *(f"  {line}" for line in (*_about(report, task), *heads_said(report))), *map(_line, noted)]
    for why in (LEFT_OUT, NOT_MEASURED):
        names = [verdict.factor for verdict in whole if verdict.metric == why]
        lines += [f"  {why}: {', '.join(names)}"] if names else []
    if not fails and SEVERITY[word]:
        lines.append(f"It passes because --fail-on is {fail_on}.")
    return Gate(EXIT_CODES[word] if fails else 0, "\n".join(lines))


def _line(verdict: Verdict) -> str:
    sentence = verdict.sentence.removesuffix(UNCALIBRATED)
    return f"  {verdict.word:<12} {verdict.need:<4} {sentence} [{verdict.metric} {two_digits(verdict.figure)}]"


def _about(report: Report, task: Task) -> list[str]:
    """Of what encoder, frames and task the report is: a gate must not pass the report of another."""
    encoder, data = report.encoder, report.data
    return [
        f"encoder {encoder.source}, sha256 {encoder.sha256[:12]}; probed {report.created}",
        f"{data.n_evaluation} frames of {data.name} in {data.num_clusters} clusters; profile {task.sha256[:12]}",
    ]
