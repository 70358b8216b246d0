"""Run: one encoder, one set of frames, one task, from the frames to the report; what was done before is not done again.

Views are rendered once for all encoders and features once for each, both in a cache. What is missing is counted, and
its time and size are said, before anything starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robossl.bar import Bar
from robossl.measure.features import Features, embed_views
from robossl.measure.subjects import Subject
from robossl.probes.forecast import check_room, say_plan, view_file
from robossl.probes.frames import Label
from robossl.probes.measure import Measure
from robossl.probes.plan import FLOOR_JOB, Plan
from robossl.probes.prepare import Prepared
from robossl.probes.profile import Profile, Thresholds
from robossl.probes.report.words import backbone_said
from robossl.probes.result import Data, Readings, Report, Task
from robossl.probes.settings import mapped
from robossl.probes.verdict import judge, overall
from robossl.probes.views import Job, Views


class Found(NamedTuple):
    """The report, and what its page shows."""

    report: Report
    views: Views
    plan: Plan


def probe(
    probed: Subject,
    references: Mapping[str, Subject],
    prepared: Prepared,
    *,
    cache: Path,
    limit_bytes: int,
    command: str | None = None,
) -> Found:
    """Render, embed, measure and judge.

    Args:
        probed: The encoder.
        references: "pixels" and "random_init".
        prepared: What it is probed with and for.
        cache: Folder of views and features, the one that `prepared` names.
        limit_bytes: How large it may get.
        command: The line that asked for it, for who wants it again.

    Raises:
        InputError: features that are no features, a cache that gets too large.
        ResourceError: the disk is full, or a server does not answer; what is done is kept.
    """
    views, plan, profile, settings = prepared.views, prepared.plan, prepared.profile, prepared.settings
    labels, subjects = prepared.labels, {"": probed, **references}
    maps = mapped(plan, profile)
    backbone = references["random_init"].backbone if "random_init" in references else None
    num_bytes = say_plan(
        views, plan, subjects, prepared.labels_said, maps, more=[*prepared.outlook(), *backbone_said(backbone)]
    )
    check_room(cache, num_bytes, limit_bytes, views=views, plan=plan, subjects=subjects)
    with watched("render", "frames", views.num_missing(plan.jobs)) as watch:
        views.render(plan.jobs, progress=watch)
    plan = _without_unchanged(views, plan)
    readable = (profile.thresholds if profile else Thresholds()).readable
    measure = Measure(views, plan, labels, settings, readable)
    readings = {key: _measured(each, views, plan, measure, cache / "features", maps) for key, each in subjects.items()}
    own = readings.pop("")
    unmeasured = {**prepared.unavailable, **plan.unavailable}
    verdicts = judge(own, readings, profile, unmeasured=unmeasured) if profile else ()
    report = Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder=probed.info,
        data=_data(views, labels),
        settings={**asdict(settings), "unavailable": dict(plan.unavailable), "command": command},
        views=tuple(views.view(job) for job in measure.shown),
        readings=own,
        references=readings,
        task=_task(profile, prepared.use_labels),
        verdicts=verdicts,
        word=overall(verdicts) if profile else None,
        random_backbone=backbone,
    )
    return Found(report, views, plan)


def _without_unchanged(views: Views, plan: Plan) -> Plan:
    """Take out the factors that leave every frame as it is: that an encoder does not move says nothing there."""
    changed: dict[str, bool] = {}
    for job in plan.jobs:
        if job.draw == "level" and job != FLOOR_JOB:
            changed[job.factor] = changed.get(job.factor, False) or views.view(job).psnr is not None
    unchanged = {name: "it changes no pixel of these frames" for name, has in changed.items() if not has}
    for name, why in unchanged.items():
        print(f"  not shown: {name}: {why}")
    jobs = tuple(job for job in plan.jobs if job.factor not in unchanged)
    return replace(plan, jobs=jobs, unavailable={**plan.unavailable, **unchanged})


def _measured(probed: Subject, views: Views, plan: Plan, measure: Measure, cache: Path, maps: set[Job]) -> Readings:
    found: dict[Job, Features] = {}
    name = probed.info.name
    with watched(f"embed with {name}", "frames", sum(len(views.positions(job)) for job in plan.jobs)) as watch:
        files = [view_file(views, job, ("pooled", "dense") if job in maps else ("pooled",)) for job in plan.jobs]
        embedded = embed_views(probed, files, cache, watch=watch)
        for job, each in zip(plan.jobs, embedded, strict=True):
            found[job] = each
    with watched(f"measure {name}", "views", len(measure.shown)) as watch:
        return measure(name, found, paired=probed.info.kind != "reference", watch=watch)


@contextmanager
def watched(what: str, unit: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar, or lines where there is none; yields what is told the units done and in all."""
    with Bar(what, unit, total) as bar:

        def show(done: int, total: int) -> None:
            if bar.show(done, total):
                bar.say(f"{what}: {done} of {total} {unit}")

        yield show


def _data(views: Views, labels: Mapping[str, Label]) -> Data:
    frames, split = views.frames, views.split
    return Data(
        name=frames.name,
        sha256=frames.digest,
        n_reference=len(split.reference),
        n_evaluation=len(split.evaluation),
        num_clusters=len(np.unique(frames.clusters[split.evaluation])),
        cluster_key=frames.cluster_key,
        resolution=frames.hw,
        mask=True,
        labels=tuple(labels),
    )


def _task(profile: Profile | None, use_labels: bool) -> Task | None:
    if profile is None:
        return None
    return Task(
        profile=profile.name,
        sha256=profile.sha256,
        calibrated=profile.calibrated,
        max_level={name: each.max_level for name, each in profile.factors.items()},
        needs={name: each.needs for name, each in profile.factors.items()},
        about=profile.about,
        labels=profile.labels if use_labels else (),
    )
