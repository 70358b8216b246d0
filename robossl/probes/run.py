"""Run: one encoder, one set of frames, one task, from the frames to the report; what was done before is not done again.

Views are rendered once for all encoders and features once for each, both in a cache. What is missing is counted, and
its time and size are said, before anything starts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robossl.bar import Bar
from robossl.errors import InputError
from robossl.probes.features import Features, ViewFile, features, paths
from robossl.probes.frames import Frames, Label
from robossl.probes.measure import Measure
from robossl.probes.plan import FLOOR_JOB, Plan, plan_views
from robossl.probes.profile import Profile, Thresholds
from robossl.probes.result import Data, Readings, Report, Task
from robossl.probes.settings import Settings, chosen_labels, chosen_levels, mapped
from robossl.probes.split import split_frames
from robossl.probes.subjects import Output, Probed
from robossl.probes.verdict import judge, overall
from robossl.probes.views import Job, Views

TIMED = 8  # frames an encoder is timed on


class Found(NamedTuple):
    """The report, and what its page shows."""

    report: Report
    views: Views
    plan: Plan


def probe(
    probed: Probed,
    references: Mapping[str, Probed],
    frames: Frames,
    *,
    profile: Profile | None,
    factors: Sequence[str],
    cache: Path,
    limit_bytes: int,
    settings: Settings,
) -> Found:
    """Render, embed, measure and judge.

    Args:
        probed: The encoder.
        references: "pixels" and "random_init".
        frames: What it is probed with.
        profile: The task; None judges nothing.
        factors: Those that are measured.
        cache: Folder of views and features.
        limit_bytes: How large it may get.
        settings: How much is measured.

    Raises:
        InputError: frames that nothing can be said on, features that are no features, a cache that gets too large.
        ResourceError: the disk is full, or a server does not answer; what is done is kept.
    """
    split = split_frames(
        frames, n_reference=settings.n_reference, n_evaluation=settings.n_evaluation, seed=settings.seed
    )
    views = Views(frames, split, cache / "views", seed=settings.seed)
    levels, decoded = chosen_levels(factors, profile, settings)
    plan = plan_views(views, levels, decode=decoded)
    subjects = {"": probed, **references}
    labels = chosen_labels(frames, profile)
    maps = mapped(plan, profile)
    num_bytes = plan.num_bytes + say_plan(views, plan, subjects, labels, maps)
    check_room(cache, num_bytes, limit_bytes, wanted=_paths(cache, views, plan, subjects))
    with watched("render", "frames", views.num_missing(plan.jobs)) as watch:
        views.render(plan.jobs, progress=watch)
    plan = _without_unchanged(views, plan)
    readable = (profile.thresholds if profile else Thresholds()).readable
    measure = Measure(views, plan, labels, settings, readable)
    readings = {key: _measured(each, views, plan, measure, cache / "features", maps) for key, each in subjects.items()}
    own = readings.pop("")
    verdicts = judge(own, readings, profile, unmeasured=plan.unavailable) if profile else ()
    report = Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        encoder=probed.about,
        data=_data(frames, views, labels),
        settings={**asdict(settings), "unavailable": dict(plan.unavailable)},
        views=tuple(views.view(job) for job in measure.shown),
        readings=own,
        references=readings,
        task=_task(profile),
        verdicts=verdicts,
        word=overall(verdicts) if profile else None,
    )
    return Found(report, views, plan)


def say_plan(
    views: Views, plan: Plan, subjects: Mapping[str, Probed], labels: Mapping[str, Label], maps: set[Job]
) -> int:
    """Print what will be done, how large it gets and about how long it takes; the bytes of all features."""
    split, num_frames = views.split, sum(len(views.positions(job)) for job in plan.jobs)
    example = views.frames.clean(split.evaluation[:TIMED])
    num_mapped = sum(len(views.positions(job)) for job in plan.jobs if job in maps)
    minutes, num_bytes = plan.seconds / 60, 0
    for each in subjects.values():
        each(example[:1])
        began = time.perf_counter()
        embedded = each(example)
        minutes += num_frames * (time.perf_counter() - began) / len(example) / 60
        frame_bytes = {name: 4 * values[0].size for name, values in embedded.items()}
        num_bytes += num_frames * frame_bytes["pooled"] + num_mapped * frame_bytes.get("dense", 0)
    clusters = len(np.unique(views.frames.clusters[split.evaluation]))
    print(
        f"{views.frames.name}: {len(split.evaluation)} frames in {clusters} clusters ({views.frames.cluster_key}) are "
        f"judged, {len(split.reference)} are for reference; labels: {', '.join(labels) or 'none'}"
    )
    print(
        f"{len(plan.jobs)} views, {num_frames} frames, {(plan.num_bytes + num_bytes) / 1e9:.2f} GB of them and of "
        f"features in {views.folder.parent.parent}; "
        f"at most {minutes:.0f} minutes for {', '.join(each.about.name for each in subjects.values())}, the statistics "
        "apart; what an earlier run has done is not done again",
        flush=True,
    )
    for line in (*views.frames.notes, *(f"not shown: {name}: {why}" for name, why in plan.unavailable.items())):
        print(f"  {line}")
    return num_bytes


def check_room(cache: Path, num_bytes: int, limit_bytes: int, *, wanted: set[Path]) -> None:
    """Refuse what would make the cache larger than allowed, before anything is written.

    Raises:
        InputError: it would.
    """
    others = [path.stat().st_size for path in cache.rglob("*.npy") if path not in wanted]
    if num_bytes + sum(others) > limit_bytes:
        raise InputError(
            f"views and features take {num_bytes / 1e9:.2f} GB and {cache} holds {sum(others) / 1e9:.2f} GB of others, "
            f"allowed are {limit_bytes / 1e9:.2f} GB together; ask for fewer factors or frames, empty the cache or "
            "raise --cache-gb"
        )


def _paths(cache: Path, views: Views, plan: Plan, subjects: Mapping[str, Probed]) -> set[Path]:
    """What a run writes."""
    files = [_file(views, job, ("pooled", "dense")) for job in plan.jobs]
    embedded = [path for each in subjects.values() for file in files for path in paths(each, file, cache / "features")]
    return {*(file.path for file in files), *embedded}


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


def _measured(probed: Probed, views: Views, plan: Plan, measure: Measure, cache: Path, maps: set[Job]) -> Readings:
    found: dict[Job, Features] = {}
    name = probed.about.name
    with watched(f"embed with {name}", "frames", sum(len(views.positions(job)) for job in plan.jobs)) as watch:
        files = [_file(views, job, ("pooled", "dense") if job in maps else ("pooled",)) for job in plan.jobs]
        embedded = features(probed, files, cache, watch=lambda _, done, total: watch(done, total))
        for job, each in zip(plan.jobs, embedded, strict=True):
            found[job] = each
    with watched(f"measure {name}", "views", len(measure.shown)) as watch:
        return measure(name, found, paired=probed.about.kind != "reference", watch=watch)


@contextmanager
def watched(what: str, unit: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """A bar, or lines where there is none; yields what is told the units done and in all."""
    with Bar(what, unit, total) as bar:

        def show(done: int, total: int) -> None:
            if bar.show(done, total):
                bar.say(f"{what}: {done} of {total} {unit}")

        yield show


def _file(views: Views, job: Job, outputs: tuple[Output, ...]) -> ViewFile:
    path = views.path(job)
    return ViewFile(path, hashlib.sha256(f"{views.frames.digest} {path.name}".encode()).hexdigest(), outputs)


def _data(frames: Frames, views: Views, labels: Mapping[str, Label]) -> Data:
    split = views.split
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


def _task(profile: Profile | None) -> Task | None:
    if profile is None:
        return None
    return Task(
        profile=profile.name,
        sha256=profile.sha256,
        calibrated=profile.calibrated,
        max_level={name: each.max_level for name, each in profile.factors.items()},
        needs={name: each.needs for name, each in profile.factors.items()},
    )
