"""Make all measurements of one encoder. Heads and whitening for clean frames are fitted once for all factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.features import Features
from robossl.measure.figures import Draws, MetricParts, missing
from robossl.probes.decoding import FramePairs, decode
from robossl.probes.dense import by_homography, keypoint_drift, pck, soft_argmax
from robossl.probes.equivariance import equivariance
from robossl.probes.factors import resolve_factor
from robossl.probes.factors.factor import Factor
from robossl.probes.health import health
from robossl.probes.invariance import METRICS as INVARIANCE
from robossl.probes.invariance import Space, fit_space, invariance_scores, unmeasurable
from robossl.probes.plan import FLOOR_JOB, make_decode_job
from robossl.probes.result import Cell, CleanHead, Decoding, Neighbours, ProbeHealth, Retention
from robossl.probes.retention import LabelHead, RetentionTask, fit_augmented, fit_task, retention
from robossl.probes.retrieval import METRICS as RETRIEVAL
from robossl.probes.retrieval import mistaken, retrieval_scores
from robossl.probes.views import Part, RenderJob

if TYPE_CHECKING:
    from robossl.probes.measure import Measure

SHOWN = 4  # maximum number of views (transformed frames) whose worst retrievals are shown


@dataclass(frozen=True)
class EncoderMeasures:
    """Makes the measurements of one encoder.

    Args:
        common: Views (transformed frames), labels and resamples that all encoders share.
        features: The encoder's features of each job (file of views).
        paired: Keep for each cluster (such as an episode) its part of `nis_w`, because a paired comparison of reports
            needs it.
        spaces: Cache of the features' mean and whitening for each base (shape to which frames are cut, such as "disc").
        tasks: Cache of the heads that are fitted on clean frames, for each label and base.
    """

    common: Measure
    features: Mapping[RenderJob, Features]
    paired: bool
    spaces: dict[str, Space] = field(default_factory=dict)
    tasks: dict[tuple[str, str], RetentionTask] = field(default_factory=dict)

    def pooled(self, job: RenderJob) -> Float[ndarray, "n d"]:
        return self.features[job]["pooled"]

    def space(self, base: str) -> Space:
        if base not in self.spaces:
            self.spaces[base] = fit_space(self.pooled(_clean(base, "reference")))
        return self.spaces[base]

    @cached_property
    def health(self) -> ProbeHealth:
        reference, clean = (self.pooled(_clean("plain", part)) for part in ("reference", "evaluation"))
        common = self.common
        return health(reference, clean, self.pooled(FLOOR_JOB), self.space("plain"), common.draws, common.gallery)

    def cells(self, job: RenderJob) -> Iterator[Cell]:
        """Yield the metrics of one view (transformed frames): invariance, retrieval and sometimes equivariance.

        Equivariance of pooled features is measured for factors with classes. Equivariance of feature maps is measured
        for factors that move points, if the maps were kept.
        """
        factor, common = resolve_factor(job.factor), self.common
        clean, moved = self.pooled(common.views.clean(job)), self.pooled(job)
        space, draws = self.space(factor.base), common.draws
        reason = unmeasurable(clean, moved, space, draws)
        if reason:
            none = missing(reason, n=len(clean), clusters=draws.weights.shape[1])
            yield from (Cell(job.factor, job.level, name, none) for name in (*INVARIANCE, *RETRIEVAL))
            return
        scores = invariance_scores(clean, moved, space, draws) | retrieval_scores(clean, moved, space, common.gallery)
        for name, each in scores.items():
            figure = draws.figure(each.parts, each.statistic, limits=each.limits)
            yield Cell(
                job.factor, job.level, name, figure, _shares(each, draws) if name == "nis_w" and self.paired else ()
            )
        if factor.classes:
            yield from self._equivariance(job, factor)
        if factor.warp is not None and "dense" in self.features[job]:
            yield from self._dense(job, factor)

    def _equivariance(self, job: RenderJob, factor: Factor) -> Iterator[Cell]:
        """Yield how well a linear map predicts the features of transformed frames from those of the clean frames.

        Each level of the factor is one class (kind of change). The map is fitted on the reference frames that were
        transformed with the class of this level. Yield nothing if the plan has no transformed reference frames.
        """
        kind = make_decode_job(job.factor, job.level, "reference")
        if kind not in self.features:
            return
        drawn = self.common.views.values(kind)[:, 0] == factor.strengths(job.level)[0]
        reference = self.pooled(self.common.views.clean(kind))[drawn], self.pooled(kind)[drawn]
        judged = self.pooled(self.common.views.clean(job)), self.pooled(job)
        train, test = (FramePairs(clean, moved, np.zeros((len(clean), 1))) for clean, moved in (reference, judged))
        for name, figure in equivariance(train, test, self.common.draws).items():
            yield Cell(job.factor, job.level, name, figure)

    def _dense(self, job: RenderJob, factor: Factor) -> Iterator[Cell]:
        common, before = self.common, self.common.views.clean(job)
        clean, moved = self.features[before]["dense"], self.features[job]["dense"]
        to_clean, to_moved = common.homographies(before, factor), common.homographies(job, factor)
        assert to_clean is not None and to_moved is not None
        warps = [by_homography(each) for each in to_moved @ np.linalg.inv(to_clean)]
        view_hw = common.views.shape(job)[1:3]
        figures = {
            "pck": pck(clean, moved, warps, common.draws, view_hw=view_hw, disc=factor.base != "plain"),
            "drift_px": keypoint_drift(soft_argmax(clean), soft_argmax(moved), warps, common.draws, view_hw=view_hw),
        }
        yield from (Cell(job.factor, job.level, name, figure) for name, figure in figures.items())

    def decodings(self, job: RenderJob) -> tuple[Decoding, ...]:
        """Decode the strength of a factor from frames with different strengths up to this level; return the scores.

        Return an empty tuple if the plan has no such frames.
        """
        factor, common = resolve_factor(job.factor), self.common
        jobs = [make_decode_job(job.factor, job.level, part) for part in ("reference", "evaluation")]
        if not all(each in self.features for each in jobs):
            return ()
        train, test = (
            FramePairs(
                self.pooled(common.views.clean(each)), self.pooled(each), factor.targets(common.views.values(each))
            )
            for each in jobs
        )
        return decode(
            train,
            test,
            common.draws,
            factor=job.factor,
            level=job.level,
            num_classes=factor.num_classes,
            mlp=common.settings.mlp,
            num_shuffles=common.settings.num_shuffles,
            seed=common.settings.seed,
        )

    def retentions(self, job: RenderJob) -> Iterator[Retention]:
        """Yield for every label its retention: the share of a head's score on clean frames that is left on the view.

        A head is fitted on clean frames. If the plan has transformed reference frames, a second head is fitted on clean
        and transformed frames.
        """
        factor, common = resolve_factor(job.factor), self.common
        for name in common.labels:
            task = self.task(name, job, factor)
            yield from retention(
                task,
                self.pooled(job),
                common.label(name, job, factor),
                common.draws,
                factor=job.factor,
                level=job.level,
                augmented=self._augmented(task, job, factor),
            )

    def clean_heads(self) -> Iterator[CleanHead]:
        """Yield for every label the score of its head on whole clean frames (not cut to a disc or square)."""
        factor = resolve_factor(FLOOR_JOB.factor)
        yield from (CleanHead(name, self.task(name, FLOOR_JOB, factor).figure) for name in self.common.labels)

    def task(self, name: str, job: RenderJob, factor: Factor) -> RetentionTask:
        key = name, factor.base
        if key not in self.tasks:
            common = self.common
            evaluated, fitted = common.views.clean(job), _clean(factor.base, "reference")
            labels = [common.label(name, each, factor).label or common.labels[name] for each in (fitted, evaluated)]
            self.tasks[key] = fit_task(
                name,
                labels[0],
                labels[1],
                reference=self.pooled(fitted),
                reference_clusters=common.views.frames.clusters[common.views.positions(fitted)],
                clean=self.pooled(evaluated),
                draws=common.draws,
                readable=common.readable,
            )
        return self.tasks[key]

    def _augmented(self, task: RetentionTask, job: RenderJob, factor: Factor) -> LabelHead | None:
        drawn = make_decode_job(job.factor, job.level, "reference")
        if drawn not in self.features:
            return None
        common, clean = self.common, _clean(factor.base, "reference")
        label = common.label(task.name, clean, factor).label
        if label is None:
            return None
        return fit_augmented(
            task,
            label,
            common.label(task.name, drawn, factor),
            reference=self.pooled(clean),
            moved_reference=self.pooled(drawn),
            reference_clusters=common.views.frames.clusters[common.views.positions(clean)],
        )

    def neighbours(self, cells: list[Cell]) -> tuple[Neighbours, ...]:
        """Return the worst wrong retrievals for the factors and levels with the lowest R@1, one level per factor."""
        scored = [(cell.figure.value, cell) for cell in cells if cell.metric == "r1" and cell.figure.value is not None]
        worst: dict[str, Cell] = {}
        for _, cell in sorted(scored, key=lambda each: each[0]):
            worst.setdefault(cell.factor, cell)
        kept = []
        for cell in list(worst.values())[:SHOWN]:
            job = RenderJob(cell.factor, cell.level, "level", "evaluation")
            clean = self.pooled(self.common.views.clean(job))
            space = self.space(resolve_factor(cell.factor).base)
            pairs = mistaken(clean, self.pooled(job), space, self.common.gallery)
            kept.append(Neighbours(cell.factor, cell.level, pairs))
        return tuple(each for each in kept if each.pairs)


def _clean(base: str, part: Part) -> RenderJob:
    return RenderJob(base, 0, "clean", part)


def _shares(scores: MetricParts, draws: Draws) -> tuple[tuple[float, float], ...]:
    """Return a numerator and a denominator of NIS for each cluster (such as an episode).

    NIS is the sum of all numerators over the sum of all denominators. The denominator sums, over the frames of the
    cluster, the distance to the views (transformed frames) of other frames. The numerator is the denominator minus the
    summed distances to the frames' own views.
    """
    sums = [np.bincount(draws.clusters, weights=column) for column in scores.parts.T]
    return tuple((float(other - own), float(other)) for own, other in zip(*sums, strict=True))
