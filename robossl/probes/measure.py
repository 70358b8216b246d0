"""Measure several encoders on the same views (transformed frames), labels and bootstrap resamples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.features import Features
from robossl.measure.figures import Draws, draw
from robossl.probes.factors.factor import Factor
from robossl.probes.frames import Label
from robossl.probes.label_maps import ViewLabel, move_label
from robossl.probes.moves import to_view
from robossl.probes.plan import FLOOR_JOB, RenderPlan
from robossl.probes.reading import EncoderMeasures
from robossl.probes.result import Cell, Decoding, Readings, Retention
from robossl.probes.retention import READABLE
from robossl.probes.retrieval import spread_gallery
from robossl.probes.settings import ProbeSettings
from robossl.probes.views import RenderJob, Views


@dataclass(frozen=True)
class Measure:
    """Measures encoders on the views, labels and bootstrap resamples that they share.

    Args:
        views: Rendered views (transformed frames).
        plan: The views to measure.
        labels: Labels to fit heads to.
        settings: Numbers of frames, resamples and shuffles.
        readable: Smallest score above chance at which a label counts as readable. It is compared with the lower bound
            of the score that the label's head has on clean frames.
    """

    views: Views
    plan: RenderPlan
    labels: Mapping[str, Label]
    settings: ProbeSettings
    readable: float = READABLE

    def __call__(
        self,
        name: str,
        features: Mapping[RenderJob, Features],
        *,
        paired: bool = False,
        watch: Callable[[int, int], None] = lambda done, total: None,
    ) -> Readings:
        """Measure one encoder.

        Args:
            name: Name of the encoder.
            features: The encoder's features of each view (transformed frames) in the plan.
            paired: Keep for each cluster (such as an episode) its part of `nis_w`, because a paired comparison of
                reports needs it.
            watch: Function that is called after each view with two numbers: finished views and all views.
        """
        one = EncoderMeasures(self, features, paired)
        cells: list[Cell] = []
        decodings: list[Decoding] = []
        retentions: list[Retention] = []
        for done, job in enumerate(self.shown, start=1):
            cells += one.cells(job)
            retentions += one.retentions(job)
            decodings += one.decodings(job)
            watch(done, len(self.shown))
        heads = tuple(one.clean_heads())
        return Readings(
            name, one.health, tuple(cells), tuple(decodings), tuple(retentions), one.neighbours(cells), heads
        )

    @cached_property
    def shown(self) -> tuple[RenderJob, ...]:
        """The views (transformed frames) to measure: one for each factor and level. Weak noise is not included."""
        return tuple(job for job in self.plan.jobs if job.draw == "level" and job != FLOOR_JOB)

    @cached_property
    def draws(self) -> Draws:
        """Bootstrap resamples of the clusters (such as episodes) of the evaluated frames."""
        clusters = self.views.frames.clusters[self.views.split.evaluation]
        return draw(clusters, num_resamples=self.settings.num_resamples, seed=self.settings.seed)

    @cached_property
    def gallery(self) -> Int[ndarray, " g"]:
        """Indices of the evaluated frames that retrieval searches."""
        return spread_gallery(self.views.frames.clusters[self.views.split.evaluation], seed=self.settings.seed)

    def label(self, name: str, job: RenderJob, factor: Factor) -> ViewLabel:
        """Return the label that the frames of a render job have after the transformation, or why it is undefined."""
        whole = self.labels[name]
        own = replace(whole, values=whole.values[self.views.positions(job)])
        if job.draw == "clean" and (factor.warp is None or whole.type not in ("point", "box")):
            # Clean frames are only cut to a shape, which changes no labels except points and boxes.
            return ViewLabel(own)
        return move_label(
            own,
            factor=factor.name,
            family=factor.family,
            to_view=self.homographies(job, factor),
            hw=self.views.frames.hw,
            view_hw=self.views.shape(job)[1:3],
            disc=factor.base != "plain",
        )

    def homographies(self, job: RenderJob, factor: Factor) -> Float[ndarray, "n 3 3"] | None:
        """Return homographies from clean frames to the frames of a render job; None if the factor moves no point."""
        if job.draw != "clean":
            return to_view(self.views, job)
        if factor.warp is None:
            return None
        return factor.warp(factor.clean_values(len(self.views.positions(job))), self.views.frames.hw)
