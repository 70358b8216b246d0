"""Look up the numbers of a report, and what the task needs, by factor and level (strength)."""

from __future__ import annotations

from robossl.probes.profile import Thresholds
from robossl.probes.result import Decoding, Family, Figure, Need, Readings, Report, Retention, Verdict, ViewFigures
from robossl.probes.retention import HeadName
from robossl.report.heatmap import LEVELS as LEVELS

FAMILIES: tuple[Family, ...] = ("photometric", "geometric", "scene", "temporal")
MILD_ENOUGH = 3  # severest level at which a factor is shown if no task sets a limit
HIGH = Thresholds().over_invariant_nis_w  # minimum NIS_w (invariance score) of features that are called invariant


class ReportIndex:
    """A report whose numbers can be looked up by factor and level (strength)."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.is_collapsed = "collapsed" in report.readings.health.flags
        self.factors: dict[Family, list[str]] = {
            family: list(dict.fromkeys(view.factor for view in report.views if view.family == family))
            for family in FAMILIES
        }
        self.labels = tuple(dict.fromkeys(each.label for each in report.readings.retentions))
        self._views = {(view.factor, view.level): view for view in report.views}
        self._verdicts = {(verdict.factor, verdict.level): verdict for verdict in report.verdicts}
        self._retentions = {(r.label, r.factor, r.level, r.head): r for r in report.readings.retentions}

    @property
    def names(self) -> list[str]:
        """Names of all factors, sorted by family (such as photometric)."""
        return [factor for factors in self.factors.values() for factor in factors]

    def view(self, factor: str, level: int) -> ViewFigures | None:
        """Return what the report says about a view (frames changed by a factor); None if it was not rendered."""
        return self._views.get((factor, level))

    def cell(self, factor: str, level: int, metric: str = "nis_w", *, of: Readings | None = None) -> Figure | None:
        """Return the value of a metric of the judged encoder; None if the metric was not measured.

        To get the value of another encoder, such as a baseline, pass the readings (measurements) of that encoder as
        `of`.
        """
        cells = (of or self.report.readings).cells
        return next((c.figure for c in cells if (c.factor, c.level, c.metric) == (factor, level, metric)), None)

    def kept(self, label: str, factor: str, level: int, *, of: Readings | None = None) -> Retention | None:
        """Return the retention on which the verdict is based; None if it was not measured. `of` is as in `cell`.

        Retention is the share of a head's score that is left on changed frames. If the task needs INV (features must
        ignore the factor), the head was tested with the label of the unchanged frame. Otherwise the head was tested
        with the label that has moved with the picture.
        """
        head: HeadName = "same" if self.need(factor, level) == "INV" else "clean"
        wanted = (label, factor, level, head)
        if of is None:
            return self._retentions.get(wanted)
        return next((r for r in of.retentions if (r.label, r.factor, r.level, r.head) == wanted), None)

    def decoding(self, factor: str, level: int, protocol: str = "abs") -> Decoding | None:
        """Return the better of two results (linear probe and MLP) of decoding a factor; None if it was not decoded."""
        found = [
            each
            for each in self.report.readings.decodings
            if (each.factor, each.level, each.protocol) == (factor, level, protocol)
        ]
        return max(found, key=lambda each: -9.0 if each.figure.value is None else each.figure.value, default=None)

    def need(self, factor: str, level: int) -> Need:
        """Return what the task needs of a factor at a level, such as INV; "-" for no need or no task."""
        task = self.report.task
        return task.needs[factor][level - 1] if task and factor in task.needs else "-"

    def last_judged(self, factor: str) -> int:
        """Return the severest level of a factor that the task judges; MILD_ENOUGH if no task sets such a level."""
        task = self.report.task
        return task.max_level.get(factor, MILD_ENOUGH) if task else MILD_ENOUGH

    def shown_level(self, factor: str) -> int:
        """Return the level at which a factor is shown: the severest judged level that was rendered.

        If no judged level was rendered, return the mildest rendered level. If no level was rendered, return 1.
        """
        levels = [level for level in LEVELS if (factor, level) in self._views]
        return max((level for level in levels if level <= self.last_judged(factor)), default=min(levels, default=1))

    def needs(self, factor: str) -> str:
        """Return what the task needs of a factor at the judged levels, each need once, such as INV or INV/EQUI."""
        levels = range(1, self.last_judged(factor) + 1)
        return "/".join(dict.fromkeys(self.need(factor, level) for level in levels))

    def verdict(self, factor: str, level: int | None = None) -> Verdict | None:
        """Return the verdict on a factor, or on one of its levels; None if there is no verdict."""
        return self._verdicts.get((factor, level))

    def is_over_invariant(self, factor: str, level: int) -> bool:
        """Whether the features stay the same although the task needs them to change."""
        figure = self.cell(factor, level)
        high = figure is not None and figure.value is not None and figure.value >= HIGH
        return high and self.need(factor, level) == "EQUI" and not self.is_collapsed
