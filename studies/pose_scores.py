"""How well labels can be decoded from encoders on labelled frames, clean and changed, with paired differences.

The frames are those of a probe: a recorded scene with poses, or an environment that renders its scenes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.bootstrap import Interval
from robossl.measure.features import embed_views
from robossl.measure.figures import Draws, Figure
from robossl.measure.metrics import R2
from robossl.measure.subjects import Subject
from robossl.probes.factors import resolve_factor
from robossl.probes.forecast import view_file
from robossl.probes.frames import ProbeFrames
from robossl.probes.measure import Measure
from robossl.probes.plan import FLOOR_JOB
from robossl.probes.prepare import prepare
from robossl.probes.reading import EncoderMeasures
from robossl.probes.settings import ProbeSettings

SETTINGS = ProbeSettings(n_reference=1500, n_evaluation=500, levels=(3,), mlp=False, decode_all=False)


class Decoded(NamedTuple):
    """Terms of R2 for each frame, of one encoder on all its views: first clean, then each changed view."""

    parts: Float[ndarray, "n v*k"]
    width: int  # number of terms of one view
    groups: tuple[tuple[int, ...], ...]


class Score(NamedTuple):
    """R2 on clean frames, and the mean over changed views, where an R2 below 0 counts as 0."""

    clean: Interval
    changed: Interval | None


class LabelledFrames:
    """Frames with one label to decode, and the changed views on which a head that was fitted on clean frames is tested.

    Args:
        frames: The frames.
        label: Name of the label to decode.
        factors: Factors whose views are tested at level 3; () for clean frames only.
        cache: Folder of views and features.
        settings: Numbers of frames and resamples.
    """

    def __init__(
        self,
        frames: ProbeFrames,
        label: str,
        factors: Sequence[str],
        cache: Path,
        settings: ProbeSettings = SETTINGS,
    ) -> None:
        self.cache, self.label, self.factors = cache, label, tuple(factors)
        # At least one factor is needed for the plan; its views are used only if it was asked for.
        prepared = prepare(frames, profile=None, factors=factors or ["brightness"], cache=cache, settings=settings)
        self.prepared = prepared
        if left_out := [name for name in self.factors if name in prepared.unavailable]:
            raise SystemExit(f"{frames.name} cannot show {', '.join(left_out)}")
        self.prepared.views.render(prepared.plan.jobs)
        labels = {label: prepared.views.frames.labels[label]}
        self.measure = Measure(prepared.views, prepared.plan, labels, settings)

    @property
    def draws(self) -> Draws:
        """The resamples of clusters (episodes or pieces of a recording)."""
        return self.measure.draws

    def decode(self, subject: Subject) -> Decoded:
        """Fit a linear head on clean reference frames; return the terms of its R2 on the judged frames."""
        plan, views = self.prepared.plan, self.prepared.views
        files = [view_file(views, job, ("pooled",)) for job in plan.jobs]
        found = dict(zip(plan.jobs, embed_views(subject, files, self.cache / "features"), strict=True))
        one = EncoderMeasures(self.measure, found, paired=False)
        task = one.task(self.label, FLOOR_JOB, resolve_factor(FLOOR_JOB.factor))
        assert task.head is not None and isinstance(task.head.target.score, R2)
        parts = [task.clean]
        for job in self.measure.shown if self.factors else ():
            factor = resolve_factor(job.factor)
            moved = self.measure.label(self.label, job, factor).label
            assert moved is not None, f"{job.factor} leaves no label"
            parts.append(task.head.target.parts(moved, task.head.read(one.pooled(job))))
        return Decoded(np.concatenate(parts, axis=1), task.clean.shape[1], task.head.target.groups)


def score(data: LabelledFrames, row: Sequence[Decoded], other: Sequence[Decoded] = ()) -> Score:
    """Return the mean score of a row's encoders (seeds), or its paired difference from the mean of another row."""
    both = [*row, *other]
    groups, width, num_views = row[0].groups, row[0].width, row[0].parts.shape[1] // row[0].width
    one_r2 = R2(groups)

    def statistic(sums: Float[ndarray, "... k"], *, views: slice, floor: float) -> Float[ndarray, " ..."]:
        count, rest = sums[..., :1], sums[..., 1:]
        means = []
        for start, stop in ((0, len(row)), (len(row), len(both))):
            each = [
                np.maximum(one_r2(np.concatenate([count, rest[..., at : at + width]], axis=-1)), floor)
                for encoder in range(start, stop)
                for at in (width * (encoder * num_views + view) for view in range(num_views)[views])
            ]
            means.append(np.mean(each, axis=0) if each else np.zeros_like(count[..., 0]))
        return np.asarray(means[0] - means[1])

    parts = np.concatenate([each.parts for each in both], axis=1)

    def interval(views: slice, floor: float) -> Interval:
        found: Figure = data.draws.figure(parts, lambda sums: statistic(sums, views=views, floor=floor))
        if found.value is None or found.low is None or found.high is None:
            raise SystemExit(f"{data.label}: no score ({found.reason})")
        return Interval(found.value, found.low, found.high)

    clean = interval(slice(0, 1), -np.inf)
    return Score(clean, interval(slice(1, None), 0.0) if num_views > 1 else None)


def score_rows(
    data: LabelledFrames, rows: Mapping[str, Sequence[Subject]], references: Mapping[str, Sequence[str]]
) -> dict[str, dict[str, Score]]:
    """Return for each row its score (by the name "") and its paired differences from the rows that it refers to."""
    decoded = {name: [data.decode(subject) for subject in subjects] for name, subjects in rows.items()}
    return {
        name: {"": score(data, own)} | {other: score(data, own, decoded[other]) for other in references.get(name, ())}
        for name, own in decoded.items()
    }
