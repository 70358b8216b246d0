"""Lookup: the figures of a report by factor and strength, and what the task needs of them."""

from __future__ import annotations

from robossl.probes.profile import Thresholds
from robossl.probes.result import Decoding, Family, Figure, Need, Readings, Report, Retention, Verdict, View
from robossl.probes.retention import HeadName

FAMILIES: tuple[Family, ...] = ("photometric", "geometric", "scene", "temporal")
LEVELS = (1, 2, 3, 4, 5)
MILD_ENOUGH = 3  # the severest strength that stands for a factor where no task says otherwise
HIGH = Thresholds().over_invariant_nis_w  # from here on an encoder is called invariant


class Lookup:
    """A report, asked by factor and level."""

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
        """Every factor, family by family."""
        return [factor for factors in self.factors.values() for factor in factors]

    def view(self, factor: str, level: int) -> View | None:
        """What was done at a strength."""
        return self._views.get((factor, level))

    def cell(self, factor: str, level: int, metric: str = "nis_w", *, of: Readings | None = None) -> Figure | None:
        """A metric of the encoder, or of a reference."""
        cells = (of or self.report.readings).cells
        return next((c.figure for c in cells if (c.factor, c.level, c.metric) == (factor, level, metric)), None)

    def retention(self, label: str, factor: str, level: int, head: HeadName = "clean") -> Retention | None:
        """What is left of a head."""
        return self._retentions.get((label, factor, level, head))

    def kept(self, label: str, factor: str, level: int) -> Retention | None:
        """What is left of the clean head as the verdict asks: for the same label where the task needs INV."""
        return self.retention(label, factor, level, "same" if self.need(factor, level) == "INV" else "clean")

    def decoding(
        self, factor: str, level: int, protocol: str = "abs", *, of: Readings | None = None
    ) -> Decoding | None:
        """The better of the linear and the MLP probe."""
        found = [
            each
            for each in (of or self.report.readings).decodings
            if (each.factor, each.level, each.protocol) == (factor, level, protocol)
        ]
        return max(found, key=lambda each: -9.0 if each.figure.value is None else each.figure.value, default=None)

    def need(self, factor: str, level: int) -> Need:
        """What the task needs at a strength; - without a task."""
        task = self.report.task
        return task.needs[factor][level - 1] if task and factor in task.needs else "-"

    def last_judged(self, factor: str) -> int:
        """The severest strength that is judged."""
        task = self.report.task
        return task.max_level.get(factor, MILD_ENOUGH) if task else MILD_ENOUGH

    def shown_level(self, factor: str) -> int | None:
        """The one strength that stands for a factor: the severest that is judged and was rendered."""
        levels = [level for level in LEVELS if (factor, level) in self._views]
        return max((level for level in levels if level <= self.last_judged(factor)), default=min(levels, default=None))

    def needs(self, factor: str) -> str:
        """The needs of the judged strengths in one word, such as INV or INV/EQUI."""
        levels = range(1, self.last_judged(factor) + 1)
        return "/".join(dict.fromkeys(self.need(factor, level) for level in levels))

    def verdict(self, factor: str, level: int | None = None) -> Verdict | None:
        """Of a factor, or of one of its strengths."""
        return self._verdicts.get((factor, level))

    def is_over_invariant(self, factor: str, level: int) -> bool:
        """Whether the features stay where the task has to see them move."""
        figure = self.cell(factor, level)
        high = figure is not None and figure.value is not None and figure.value >= HIGH
        return high and self.need(factor, level) == "EQUI" and not self.is_collapsed
