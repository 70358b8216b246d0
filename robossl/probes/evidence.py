"""Look up the measured values on which a verdict is based, for the encoder and for the references.

A verdict (such as SAFE) is on one factor at one level. The references are baselines that are measured like the encoder:
pooled pixels, and the backbone with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robossl.measure.figures import Figure, missing
from robossl.probes.profile import Profile
from robossl.probes.result import UNKNOWN, Decoding, Readings, Retention

REFERENCES = {"pixels": "pooled pixels", "random_init": "random weights"}


@dataclass(frozen=True, slots=True)
class Evidence:
    """Looks up the measured values of one factor at one level."""

    readings: Readings
    references: Mapping[str, Readings]
    profile: Profile
    factor: str
    level: int

    @property
    def nis_w(self) -> Figure:
        """Invariance of the whitened features (metric `nis_w`)."""
        return self.cell("nis_w")

    @property
    def decoding(self) -> Figure:
        """Score of the better probe (linear or MLP) that decodes the factor from the view (transformed frame) alone."""
        best = self._best(self.readings)
        return best.figure if best else missing("the factor was not decoded")

    @property
    def decoding_name(self) -> str:
        """Name of the score `decoding` for the report, with its protocol and probe."""
        best = self._best(self.readings)
        return f"decoding ({best.protocol}, {best.probe})" if best else "decoding"

    @property
    def decoded(self) -> str:
        """Text that says how well the factor can be decoded from the features."""
        best = self._best(self.readings)
        if best is None or best.accuracy is None or best.chance is None:
            return two_digits(self.decoding)
        return f"{two_digits(best.figure)}, right in {best.accuracy:.0%} of frames where chance is {best.chance:.0%}"

    def cell(self, metric: str) -> Figure:
        """Return the encoder's value of a metric; if it was not measured, return a reason instead of a value."""
        return self._cell(self.readings, metric) or missing(f"{metric} was not measured")

    def retention(self, head: str, label: str | None = None) -> tuple[str | None, Figure | None]:
        """Return a label and its retention: the share of a head's score on clean frames that is left on changed frames.

        If `label` is None, choose the profile's first label whose value is known after the factor was applied. If there
        is no such label, choose the profile's first label that was tested. A label that the encoder cannot read is not
        skipped. Otherwise a later label that it can read would hide this failure. Return (None, None) if no label was
        tested.
        """
        names = self.profile.labels if label is None else (label,)
        retentions = [each for name in names if (each := self._retention(self.readings, name, head))]
        chosen = next((r for r in retentions if not is_unknown(r.figure)), retentions[0] if retentions else None)
        return (chosen.label, chosen.figure) if chosen else (None, None)

    def others(self, what: str, *, label: str = "", head: str = "") -> dict[str, float | None]:
        """Return a value for each reference (baseline); None if the value was not measured.

        `what` is the name of a metric, "decoding" or "retention". Only "retention" uses `label` and `head`.
        """
        values: dict[str, float | None] = {}
        for name, readings in self.references.items():
            if what == "decoding":
                best = self._best(readings)
                figure = best.figure if best else None
            elif what == "retention":
                kept = self._retention(readings, label, head)
                figure = kept.figure if kept else None
            else:
                figure = self._cell(readings, what)
            values[name] = figure.value if figure else None
        return values

    def decoded_by_reference(self, least: float) -> bool:
        """Return whether any reference (baseline) has a decoding score whose lower bound is at least `least`."""
        bests = [self._best(readings) for readings in self.references.values()]
        return any(best is not None and best.figure.low is not None and best.figure.low >= least for best in bests)

    def read_by(self, label: str, head: str) -> str:
        """Return the end of a sentence that names the references (baselines) that can read this label; "" if none can.

        A reference can read a label by the same rule as the encoder: its head reads the label reliably off whole clean
        frames, and off those clean frames whose label is still known in the transformed frame.
        """
        names = [
            REFERENCES.get(name, name)
            for name, readings in self.references.items()
            if self._reads_whole(readings, label)
            and (kept := self._retention(readings, label, head)) is not None
            and kept.figure.value is not None
        ]
        return f"; {' and '.join(names)} can read {label}" if names else ""

    def _reads_whole(self, readings: Readings, label: str) -> bool:
        """Return whether an encoder's head reads a label reliably off whole clean frames (not cut to a disc or square).

        `readings` holds the measurements of the encoder. Return True if the head's score was not measured.
        """
        figure = next((each.figure for each in readings.clean_heads if each.label == label), None)
        return figure is None or (figure.low is not None and figure.low >= self.profile.thresholds.readable)

    def beside(self, others: Mapping[str, float | None], *, percent: bool = False) -> str:
        """Return text in brackets with the values of the references (baselines); "" if no reference has a value."""
        named = {REFERENCES.get(name, name): value for name, value in others.items() if value is not None}
        shown = [f"{name} {value:.0%}" if percent else f"{name} {value:.2f}" for name, value in named.items()]
        return f" ({', '.join(shown)})" if shown else ""

    def _best(self, readings: Readings) -> Decoding | None:
        decodings = [
            each
            for each in readings.decodings
            if (each.factor, each.level, each.protocol) == (self.factor, self.level, "abs")
        ]
        with_value = [each for each in decodings if each.figure.value is not None]
        return max(with_value, key=lambda each: each.figure.value or 0.0, default=decodings[0] if decodings else None)

    def _cell(self, readings: Readings, metric: str) -> Figure | None:
        wanted = (self.factor, self.level, metric)
        figures = (cell.figure for cell in readings.cells if (cell.factor, cell.level, cell.metric) == wanted)
        return next(figures, None)

    def _retention(self, readings: Readings, label: str, head: str) -> Retention | None:
        wanted = (label, self.factor, self.level, head)
        return next((r for r in readings.retentions if (r.label, r.factor, r.level, r.head) == wanted), None)


def is_unknown(figure: Figure) -> bool:
    """Return whether a value is missing because the label of the transformed frames is unknown."""
    return figure.value is None and (figure.reason or "").startswith(UNKNOWN)


def percent(figure: Figure) -> str:
    """Return a share and its interval as text in %; add a note if the whole interval is below 0 (chance)."""
    assert figure.value is not None and figure.low is not None and figure.high is not None
    worse = " (worse than guessing)" if figure.high < 0 else ""
    return f"{figure.value:z.0%} [{figure.low:z.0%}, {figure.high:z.0%}]{worse}"


def two_digits(figure: Figure) -> str:
    """Return a value and its interval as text with two digits; if the value is missing, return the reason."""
    if figure.value is None or figure.low is None or figure.high is None:
        return figure.reason or "no figure"
    return f"{figure.value:z.2f} [{figure.low:z.2f}, {figure.high:z.2f}]"
