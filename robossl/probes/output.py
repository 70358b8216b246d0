"""Write the results of a probe: the report as JSON and as a page, the contact sheet, and the summary as text."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from robossl.common.atomic_io import raise_disk_full
from robossl.probes.document import write_report
from robossl.probes.grouping import Group, group_verdicts
from robossl.probes.meaning import describe_record
from robossl.probes.report.page import write_page
from robossl.probes.report.pictures import RetrievalErrors
from robossl.probes.report.words import describe_backbone, describe_clean_heads, list_factors
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Report, TaskNeeds
from robossl.probes.run import ProbeResult
from robossl.probes.sheet import draw_contact_sheet, write_sheet
from robossl.probes.verdict import UNCALIBRATED
from robossl.probes.views import RenderJob, Views


def write_outputs(found: ProbeResult, folder: Path) -> None:
    """Write the results of a probe into a folder: the report as JSON and as a page, and the contact sheet.

    Raises:
        ResourceError: the disk is full.
    """
    report = found.report
    folder.mkdir(parents=True, exist_ok=True)
    sheet = folder / "views.png"
    image = draw_contact_sheet(found.views, found.plan.jobs)
    with raise_disk_full(folder):
        write_sheet(image, sheet)
    write_report(report, folder / "report.json")
    write_page(report, folder, sheet=sheet, neighbours=_find_errors(report, found.views))


def summary(report: Report) -> list[str]:
    """Return the summary of a report as lines of text: the overall verdict, then the factors' verdicts, worst first.

    Factors whose verdicts have the same cause share a line.
    """
    heads = [f"  {line}" for line in (*describe_clean_heads(report), *describe_backbone(report.random_backbone))]
    if report.task is None:
        return [
            "no --profile, so nothing was judged; robossl probe profiles lists tasks",
            *heads,
        ]
    head = f"{report.encoder.name} is {report.word or 'not judged'} for {report.task.profile}"
    head += (
        "" if report.task.calibrated else " (thresholds uncalibrated: not yet compared with the success of policies)"
    )
    about = [f"  {report.task.about}"] if report.task.about else []
    return [head, *about, *heads, *(_line(each, report.task) for each in group_verdicts(report.verdicts))]


def _line(group: Group, task: TaskNeeds) -> str:
    """Return a line of text about one factor with its evidence, or about several factors that share a cause."""
    if group.badge in (NOT_MEASURED, LEFT_OUT):
        return f"  {group.badge}: {', '.join(group.factors)}{f': {group.cause}' if group.cause else ''}"
    if len(group.verdicts) > 1:
        meant = describe_record(group.badge, task.calibration)
        return f"  {group.badge}: {list_factors(group)}: {group.cause}{f' ({meant})' if meant else ''}"
    return f"  {group.badge}: {group.verdicts[0].sentence.removesuffix(UNCALIBRATED)}"


def _find_errors(report: Report, views: Views) -> list[RetrievalErrors]:
    """Return the worst retrievals as pictures: the query, the frame that was found, and the correct frame."""
    groups = []
    for each in report.readings.neighbours:
        job = RenderJob(each.factor, each.level, "level", "evaluation")
        moved, clean = views.pixels(job), views.pixels(views.clean(job))
        triples = [(np.asarray(moved[i]), np.asarray(clean[j]), np.asarray(clean[i])) for i, j in each.pairs]
        groups.append(RetrievalErrors(each.factor, each.level, tuple(triples)))
    return groups
