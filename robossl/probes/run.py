"""Probe one encoder on one set of frames for one task: render views, embed them, measure features and judge.

Views (transformed frames) are rendered once for all encoders and cached. Features are cached for each encoder. Before
anything starts, the approximate time and the number of bytes are printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robossl.common.progress import Progress
from robossl.measure.features import Features, embed_views
from robossl.measure.subjects import Subject
from robossl.probes.forecast import check_room, say_plan, view_file
from robossl.probes.frames import Label
from robossl.probes.measure import Measure
from robossl.probes.plan import FLOOR_JOB, RenderPlan
from robossl.probes.prepare import ProbeInputs
from robossl.probes.profile import Profile, Thresholds
from robossl.probes.report.words import describe_backbone
from robossl.probes.result import ProbeData, Readings, Report, TaskNeeds
from robossl.probes.settings import choose_dense_views
from robossl.probes.verdict import find_worst_word, judge
from robossl.probes.views import RenderJob, Views


class ProbeResult(NamedTuple):
    """The result of a probe: the report, and the views (transformed frames) whose pictures are written beside it."""

    report: Report
    views: Views
    plan: RenderPlan


def probe(
    probed: Subject,
    references: Mapping[str, Subject],
    prepared: ProbeInputs,
    *,
    cache: Path,
    limit_bytes: int,
    command: str | None = None,
) -> ProbeResult:
    """Render the views, embed them with the encoder and the baselines, measure the features and judge the encoder.

    Args:
        probed: The encoder.
        references: The baselines "pixels" and "random_init".
        prepared: Frames, views (transformed frames), labels and task.
        cache: Folder of views and features; the same folder as was given to `prepare`.
        limit_bytes: Largest allowed size of the cache.
        command: The command line, for the report.

    Raises:
        InputError: the encoder returns invalid features, or the cache would get too large.
        ResourceError: the disk is full, or a server does not answer. Finished work is kept in the cache.
    """
    views, plan, profile, settings = prepared.views, prepared.plan, prepared.profile, prepared.settings
    labels, subjects = prepared.labels, {"": probed, **references}
    maps = choose_dense_views(plan, profile)
    backbone = references["random_init"].backbone if "random_init" in references else None
    num_bytes = say_plan(
        views, plan, subjects, prepared.labels_text, maps, more=[*prepared.outlook(), *describe_backbone(backbone)]
    )
    check_room(cache, num_bytes, limit_bytes, views=views, plan=plan, subjects=subjects)
    with watched("render", "frames", views.num_missing(plan.jobs)) as watch:
        views.render(plan.jobs, progress=watch)
    plan = _drop_unchanged(views, plan)
    readable = (profile.thresholds if profile else Thresholds()).readable
    measure = Measure(views, plan, labels, settings, readable)
    readings = {
        key: _measure_one(each, views, plan, measure, cache / "features", maps) for key, each in subjects.items()
    }
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
        word=find_worst_word(verdicts) if profile else None,
        random_backbone=backbone,
    )
    return ProbeResult(report, views, plan)


def _drop_unchanged(views: Views, plan: RenderPlan) -> RenderPlan:
    """Return the plan without factors that change no pixel, because invariance to such factors says nothing."""
    changed: dict[str, bool] = {}
    for job in plan.jobs:
        if job.draw == "level" and job != FLOOR_JOB:
            changed[job.factor] = changed.get(job.factor, False) or views.view(job).psnr is not None
    unchanged = {name: "it changes no pixel of these frames" for name, has in changed.items() if not has}
    for name, why in unchanged.items():
        print(f"  not shown: {name}: {why}")
    jobs = tuple(job for job in plan.jobs if job.factor not in unchanged)
    return replace(plan, jobs=jobs, unavailable={**plan.unavailable, **unchanged})


def _measure_one(
    probed: Subject, views: Views, plan: RenderPlan, measure: Measure, cache: Path, maps: set[RenderJob]
) -> Readings:
    found: dict[RenderJob, Features] = {}
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
    """Show progress; yield a function that takes the number of finished units and the number of all units."""
    with Progress(unit=unit) as progress:
        progress.show(what, 0, total)
        yield partial(progress.show, what)


def _data(views: Views, labels: Mapping[str, Label]) -> ProbeData:
    frames, split = views.frames, views.split
    return ProbeData(
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


def _task(profile: Profile | None, use_labels: bool) -> TaskNeeds | None:
    if profile is None:
        return None
    return TaskNeeds(
        profile=profile.name,
        sha256=profile.sha256,
        calibrated=profile.calibrated,
        max_level={name: each.max_level for name, each in profile.factors.items()},
        needs={name: each.needs for name, each in profile.factors.items()},
        about=profile.about,
        labels=profile.labels if use_labels else (),
        calibration=profile.calibration,
    )
