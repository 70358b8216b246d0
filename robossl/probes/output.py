"""What a probe leaves behind: the report as JSON and as a page, the contact sheet, and what a person reads at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robossl.durable import full_disk_said
from robossl.probes.document import write_report
from robossl.probes.grouping import Group, grouped
from robossl.probes.report.page import write_page
from robossl.probes.report.pictures import TakenFor
from robossl.probes.report.words import heads_said, listed, random_said
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Report
from robossl.probes.run import Found
from robossl.probes.sheet import contact_sheet, write_sheet
from robossl.probes.verdict import UNCALIBRATED
from robossl.probes.views import Job, Views


def write_all(found: Found, folder: Path) -> None:
    """Write a probe into a folder: the report as JSON and as a page, and the contact sheet.

    Raises:
        ResourceError: the disk is full.
    """
    report = found.report
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / "views.png"
    image = contact_sheet(found.views, found.plan.jobs)
    with full_disk_said(folder):
        write_sheet(image, sheet)
    write_report(report, folder / "report.json")
    write_page(report, folder, sheet=sheet, neighbours=_taken(report, found.views))


def summary(report: Report) -> list[str]:
    """The verdicts, worst first, a line for each factor or cause."""
    heads = [f"  {line}" for line in (*heads_said(report), *random_said(report))]
    if report.task is None:
        return [
            "no --profile, so nothing was judged; robossl probe profiles lists tasks",
            *heads,
        ]
    head = f"{report.encoder.name} is {report.word or 'not judged'} for {report.task.profile}"
    head += "" if report.task.calibrated else " (thresholds uncalibrated: not yet held to the success of policies)"
    about = [f"  {report.task.about}"] if report.task.about else []
    return [head, *about, *heads, *map(_line, grouped(report.verdicts))]


def _line(group: Group) -> str:
    """One factor with its evidence, or all that share a cause."""
    if group.badge in (NOT_MEASURED, LEFT_OUT):
        return f"  {group.badge}: {', '.join(group.factors)}{f': {group.cause}' if group.cause else ''}"
    if len(group.verdicts) > 1:
        return f"  {group.badge}: {listed(group)}: {group.cause}"
    return f"  {group.badge}: {group.verdicts[0].sentence.removesuffix(UNCALIBRATED)}"


def _taken(report: Report, views: Views) -> list[TakenFor]:
    """The worst retrievals as pictures: what was shown, what was found, what was wanted."""
    groups = []
    for each in report.readings.neighbours:
        job = Job(each.factor, each.level, "level", "evaluation")
        moved, clean = views.pixels(job), views.pixels(views.clean(job))
        triples = [(np.asarray(moved[i]), np.asarray(clean[j]), np.asarray(clean[i])) for i, j in each.pairs]
        groups.append(TakenFor(each.factor, each.level, tuple(triples)))
    return groups
