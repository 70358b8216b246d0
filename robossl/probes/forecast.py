"""Announce the frames, bytes and time of a probe before it starts; check that its cache does not get too large."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robossl.errors import InputError
from robossl.measure.features import ViewFile, feature_paths
from robossl.measure.subjects import Output, Subject
from robossl.probes.plan import RenderPlan
from robossl.probes.views import RenderJob, Views

TIMED = 8  # number of frames on which an encoder's speed is measured


def say_plan(
    views: Views,
    plan: RenderPlan,
    subjects: Mapping[str, Subject],
    labels: str,
    maps: set[RenderJob],
    *,
    more: Sequence[str] = (),
) -> int:
    """Print what the probe will do, how many bytes its files take and how long it will run; return the number of bytes.

    Args:
        views: Views (transformed frames) of the probe; nothing is rendered yet.
        plan: The views to render.
        subjects: The encoder and the references (baselines); the speed of each is measured on a few frames.
        labels: Text that names the labels to which heads are fitted.
        maps: The views whose feature maps are kept in addition to their pooled features.
        more: More lines to print.
    """
    split, num_frames = views.split, sum(len(views.positions(job)) for job in plan.jobs)
    num_mapped = sum(len(views.positions(job)) for job in plan.jobs if job in maps)
    example = views.frames.clean(split.evaluation[:TIMED])
    minutes, num_bytes = plan.seconds / 60, plan.num_bytes
    for each in subjects.values():
        each(example[:1])
        began = time.perf_counter()
        features = each(example)
        minutes += num_frames * (time.perf_counter() - began) / len(example) / 60
        frame_bytes = {name: 4 * values[0].size for name, values in features.items()}
        num_bytes += num_frames * frame_bytes["pooled"] + num_mapped * frame_bytes.get("dense", 0)
    clusters = len(np.unique(views.frames.clusters[split.evaluation]))
    print(
        f"{views.frames.name}: {len(split.evaluation)} frames in {clusters} clusters ({views.frames.cluster_key}) are "
        f"judged, {len(split.reference)} are for reference; labels: {labels}"
    )
    names = ", ".join(each.info.name for each in subjects.values())
    print(
        f"{len(plan.jobs)} views, {num_frames} frames, with features {num_bytes / 1e9:.2f} GB in "
        f"{views.folder.parent.parent}; {_about(minutes)} for {names}, the statistics "
        "apart; what an earlier run has done is not done again",
        flush=True,
    )
    for line in (*views.frames.notes, *_not_shown(plan), *more):
        print(f"  {line}", flush=True)
    return num_bytes


def _not_shown(plan: RenderPlan) -> list[str]:
    """Return a line of text for each reason why factors cannot be rendered; the line names these factors."""
    names: dict[str, list[str]] = {}
    for name, why in plan.unavailable.items():
        names.setdefault(why, []).append(name)
    return [f"not shown: {', '.join(each)}: {why}" for why, each in names.items()]


def check_room(
    cache: Path, num_bytes: int, limit_bytes: int, *, views: Views, plan: RenderPlan, subjects: Mapping[str, Subject]
) -> None:
    """Refuse a run that would make the cache larger than allowed. Nothing is written before this check.

    Args:
        cache: Folder of views (transformed frames) and features.
        num_bytes: Size of all files of this run, from `say_plan`.
        limit_bytes: Largest allowed size of the cache.
        views: Views of this run.
        plan: The views to render.
        subjects: The encoder and the references (baselines).

    Raises:
        InputError: the cache would be too large.
    """
    files = [view_file(views, job, ("pooled", "dense")) for job in plan.jobs]
    own = {file.path for file in files}
    own |= {
        path for each in subjects.values() for file in files for path in feature_paths(each, file, cache / "features")
    }
    others = sum(path.stat().st_size for path in cache.rglob("*.npy") if path not in own)
    if num_bytes + others > limit_bytes:
        raise InputError(
            f"views and features take {num_bytes / 1e9:.2f} GB and {cache} holds {others / 1e9:.2f} GB of others, "
            f"allowed are {limit_bytes / 1e9:.2f} GB together; ask for fewer factors or frames, empty the cache or "
            "raise --cache-gb"
        )


def view_file(views: Views, job: RenderJob, outputs: tuple[Output, ...]) -> ViewFile:
    """Return the path and hash of a file of transformed frames, with the encoder outputs to compute from the file."""
    path = views.path(job)
    return ViewFile(path, hashlib.sha256(f"{views.frames.digest} {path.name}".encode()).hexdigest(), outputs)


def _about(minutes: float) -> str:
    return "under a minute" if minutes < 1 else f"about {minutes:.0f} minute{'s' if round(minutes) > 1 else ''}"
