"""Write verdicts, factors and numbers as text for the page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robossl.probes.grouping import Group, get_badge
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Backbone, Figure, Readings, Report, Word
from robossl.probes.retention import READABLE
from robossl.report.drawing import format_number as format_number


class Sign(NamedTuple):
    """How a verdict is shown: icon, CSS class, and meaning."""

    icon: str
    kind: str
    meaning: str


# How each verdict is shown, from worst to best. The verdict of a run is the worst verdict of all factors.
SIGNS: dict[Word, Sign] = {
    "UNUSABLE": Sign("✗", "unusable", "the features carry no information, so their invariance means nothing"),
    "RISKY": Sign("▲", "risky", "the task loses something that it needs"),
    "INCONCLUSIVE": Sign("?", "open", "the data do not suffice; a label, or more or other frames are needed"),
    "SAFE IF TRAINED WITH IT": Sign("◑", "trained", "the head must see this change in training"),
    "SAFE": Sign("✓", "safe", "what the task needs is there"),
}

# How each verdict is shown; also how factors without a verdict are shown.
BADGES: dict[str, Sign] = {
    **{str(word): sign for word, sign in SIGNS.items()},
    LEFT_OUT: Sign("○", "left-out", "the run was asked for other factors"),
    NOT_MEASURED: Sign("\u2013", "unmeasured", "these frames cannot show it; it does not count"),
}
KNOWN_FROM = {
    "card": "the encoder's own backbone",
    "option": "the backbone that --input.backbone names",
    "metadata": "the backbone that the model's metadata names",
    "file name": "the backbone in the name of the file",
    "stand-in": "in place of the encoder's own backbone, which is not known (--input.backbone names one)",
}


def format_name(factor: str) -> str:
    """Return a factor's id in plain words; "module:attribute" stays as it is.

    >>> format_name("motion_blur"), format_name("my_factor:DROP_BITS")
    ('motion blur', 'my_factor:DROP_BITS')
    """
    return factor if ":" in factor else factor.replace("_", " ")


def format_figure(figure: Figure | None) -> str:
    """Return a number and its confidence interval as text.

    >>> format_figure(Figure(0.82, 0.76, 0.88, 500, 60))
    '.82 [.76, .88]'
    """
    if figure is None or figure.value is None:
        return format_number(None)
    if figure.low is None or figure.high is None:
        return format_number(figure.value)
    return f"{format_number(figure.value)} [{format_number(figure.low)}, {format_number(figure.high)}]"


def list_factors(group: Group) -> str:
    """Return the names of a group's factors as text; if every factor has a measured value, add the values."""
    if any(verdict.figure.value is None for verdict in group.verdicts):
        return ", ".join(map(format_name, group.factors))
    return ", ".join(f"{format_name(v.factor)} ({v.metric} {format_figure(v.figure)})" for v in group.verdicts)


def count_verdicts(report: Report) -> str:
    """Return as text how many factors have each verdict, the worst verdict first."""
    words = [get_badge(v).lower() for v in report.verdicts if v.level is None and v.need != "-"]
    order = [each.lower() for each in BADGES]
    return ", ".join(f"{words.count(each)} {each}" for each in order if each in words)


def describe_clean_heads(report: Report) -> list[str]:
    """Return for each label a line of text that says how well heads read the label off unchanged frames.

    Retention is the share of this score that is left on changed frames.
    """
    names = [format_name(name) for name in report.references]
    better = find_better_references(report)
    lines = []
    for label, own, *others in list_head_rows([report.readings, *report.references.values()]):
        beside = ", ".join(f"{name} {figure}" for name, figure in zip(names, others, strict=True))
        more = f"; better from {' and '.join(better[label])}" if label in better else ""
        lines.append(f"clean frames: {label} read at {own} ({beside}){more}")
    return lines


def describe_backbone(backbone: Backbone | None) -> list[str]:
    """Return one line about the backbone that got random weights and how it was chosen; [] if that is not known."""
    return [f"random init: weights of {backbone.name}, {KNOWN_FROM[backbone.known_from]}"] if backbone else []


def find_better_references(report: Report) -> dict[str, list[str]]:
    """Return for each label the reference encoders that read it off clean frames better than the encoder does.

    A reference is better if the lower bound of its score is above READABLE and above the upper bound of the encoder's
    score.
    """
    found: dict[str, list[str]] = {}
    for own in report.readings.clean_heads:
        for name, readings in report.references.items():
            other = next((each.figure for each in readings.clean_heads if each.label == own.label), None)
            if other is None or other.low is None or own.figure.high is None:
                continue
            if other.low > max(own.figure.high, READABLE):
                found.setdefault(format_name(own.label), []).append(format_name(name))
    return found


def list_head_rows(readings: Sequence[Readings]) -> list[list[str]]:
    """Return a row for each label that all encoders read: its name, then the score of each encoder on clean frames."""
    found = [{each.label: each.figure for each in of.clean_heads} for of in readings]
    shared = [label for label in found[0] if all(label in each for each in found)]
    return [[format_name(label), *(format_figure(each[label]) for each in found)] for label in shared]
