"""Words: how verdicts, factors and figures are written, on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from robossl.probes.grouping import Group, badge
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Backbone, Figure, Readings, Report, Word
from robossl.probes.retention import READABLE


class Sign(NamedTuple):
    """A verdict for the eye: icon, css class, and what it means."""

    icon: str
    kind: str
    meaning: str


# From the worst to the best: the worst over the factors is the run's.
SIGNS: dict[Word, Sign] = {
    "UNUSABLE": Sign("✗", "unusable", "the features cannot carry anything; no invariance of theirs means anything"),
    "RISKY": Sign("▲", "risky", "the task loses something that it needs"),
    "INCONCLUSIVE": Sign("?", "open", "the data do not tell; a label, or more or other frames would"),
    "SAFE IF TRAINED WITH IT": Sign("◑", "trained", "the head has to see this change in training"),
    "SAFE": Sign("✓", "safe", "what the task needs is there"),
}

# What the page shows if a factor has no verdict.
BADGES: dict[str, Sign] = {
    **{str(word): sign for word, sign in SIGNS.items()},
    LEFT_OUT: Sign("○", "left-out", "the run was asked for other factors"),
    NOT_MEASURED: Sign("\u2013", "unmeasured", "these frames cannot show it; it does not count"),
}
CHOSEN = {
    "card": "the encoder's own backbone",
    "option": "the backbone that --input.backbone names",
    "metadata": "the backbone that the model's metadata names",
    "file name": "the backbone that the name of the file names",
    "stand-in": "in place of the encoder's own backbone, which is not known (--input.backbone names one)",
}


def title(factor: str) -> str:
    """A factor's id in plain words.

    >>> title("motion_blur")
    'motion blur'
    """
    return factor.replace("_", " ")


def short(value: float | None) -> str:
    """A figure with two digits and no leading zero.

    >>> short(0.824), short(-0.05), short(1.0), short(None)
    ('.82', '-.05', '1.0', '-')
    """
    if value is None:
        return "-"
    text = f"{value:z.2f}"
    if abs(value) >= 0.995:
        return f"{value:.1f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def with_interval(figure: Figure | None) -> str:
    """A figure and its interval.

    >>> with_interval(Figure(0.82, 0.76, 0.88, 500, 60))
    '.82 [.76, .88]'
    """
    if figure is None or figure.value is None:
        return short(None)
    if figure.low is None or figure.high is None:
        return short(figure.value)
    return f"{short(figure.value)} [{short(figure.low)}, {short(figure.high)}]"


def listed(group: Group) -> str:
    """The factors of a group, each with its figure where all have one."""
    if any(verdict.figure.value is None for verdict in group.verdicts):
        return ", ".join(title(verdict.factor) for verdict in group.verdicts)
    return ", ".join(f"{title(each.factor)} ({each.metric} {with_interval(each.figure)})" for each in group.verdicts)


def counted(report: Report) -> str:
    """How many factors got which verdict, the worst first."""
    words = [badge(v).lower() for v in report.verdicts if v.level is None and v.need != "-"]
    order = [each.lower() for each in BADGES]
    return ", ".join(f"{words.count(each)} {each}" for each in order if each in words)


def heads_said(report: Report) -> list[str]:
    """What a head reads before anything is changed, a line a label: what is kept under a change is a share of it."""
    names = [title(name) for name in report.references]
    lines = []
    for label, own, *others in head_rows([report.readings, *report.references.values()]):
        beside = ", ".join(f"{name} {read}" for name, read in zip(names, others, strict=True))
        more = read_less(report).get(label)
        less = f"; better from {' and '.join(more)}" if more else ""
        lines.append(f"clean frames: {label} read at {own} ({beside}){less}")
    return lines


def random_said(report: Report) -> list[str]:
    """Which network the random weights are of, and why that one, in a line; none in reports that do not know."""
    return backbone_said(report.random_backbone)


def backbone_said(backbone: Backbone | None) -> list[str]:
    """The same line of a backbone."""
    return [f"random init: weights of {backbone.name}, {CHOSEN[backbone.known_from]}"] if backbone else []


def read_less(report: Report) -> dict[str, list[str]]:
    """By label, the references whose heads surely read more of it off clean frames than the encoder's."""
    found: dict[str, list[str]] = {}
    for own in report.readings.clean_heads:
        for name, readings in report.references.items():
            other = next((each.figure for each in readings.clean_heads if each.label == own.label), None)
            if other is None or other.low is None or own.figure.high is None:
                continue
            if other.low > max(own.figure.high, READABLE):
                found.setdefault(title(own.label), []).append(title(name))
    return found


def head_rows(readings: Sequence[Readings]) -> list[list[str]]:
    """A row for each label that all have: its name, and how the head of each reads it off clean frames."""
    found = [{each.label: each.figure for each in of.clean_heads} for of in readings]
    shared = [label for label in found[0] if all(label in each for each in found)]
    return [[title(label), *(with_interval(each[label]) for each in found)] for label in shared]
