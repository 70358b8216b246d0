"""The verdicts on the page: the overall verdict of the run, and a line with evidence for each factor."""

from __future__ import annotations

from typing import NamedTuple

from robossl.probes.grouping import Group, get_badge, group_verdicts
from robossl.probes.meaning import describe_record
from robossl.probes.report.lookup import LEVELS, ReportIndex
from robossl.probes.report.words import (
    BADGES,
    SIGNS,
    Sign,
    count_verdicts,
    find_better_references,
    format_figure,
    format_name,
    format_number,
    list_factors,
)
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Report, Verdict
from robossl.probes.verdict import UNCALIBRATED

NEEDS = {
    "INV": "must not move",
    "EQUI": "must follow",
    "INFO": "must be readable",
    "-": "not asked",
}
NO_VERDICT = (LEFT_OUT, NOT_MEASURED)
REFERENCES = {"pixels": "pixels", "random_init": "random init"}


class VerdictBox(NamedTuple):
    """The overall verdict of the run, shown in large letters."""

    sign: Sign
    word: str
    meaning: str
    lines: tuple[str, ...] = ()


class FactorDetail(NamedTuple):
    """One factor of a group of factors that have the same verdict for the same cause."""

    name: str
    need: str
    text: str
    evidence: str
    cell: str


class StrengthDetail(NamedTuple):
    """The verdict on one strength of a factor."""

    name: str
    badge: str
    sign: Sign
    text: str


class StripLine(NamedTuple):
    """One line of the page: a factor with its evidence, or all factors whose verdicts have the same cause."""

    badge: str
    sign: Sign
    name: str
    text: str
    need: str = ""
    need_meaning: str = ""
    evidence: str = ""
    cell: str = ""  # id of the heatmap cell that decided the verdict
    factors: tuple[FactorDetail, ...] = ()
    strengths: tuple[StrengthDetail, ...] = ()


def make_verdict_box(report: Report) -> VerdictBox | None:
    """Return the overall verdict of the run and what it is based on; None if the run had no task."""
    if report.task is None:
        return None
    if report.word is None:
        return VerdictBox(
            SIGNS["INCONCLUSIVE"],
            "No verdict",
            "these frames can show no factor that it needs; probe on other data, such as env:robossl/Push-v0.",
        )
    counts = f"Factors: {count_verdicts(report)}."
    if not report.task.calibrated:
        counts += " The thresholds are uncalibrated: not yet compared with the success of a policy."
    words = dict.fromkeys(
        v.word for v in report.verdicts if v.level is None and v.metric not in (LEFT_OUT, NOT_MEASURED)
    )
    meant = [each for word in words if (each := describe_record(word, report.task.calibration))]
    better = [
        f"{label} is read better from {' and '.join(names)}" for label, names in find_better_references(report).items()
    ]
    lines = (counts, *meant, report.task.about, f"On clean frames {'; '.join(better)}." if better else "")
    return VerdictBox(SIGNS[report.word], report.word, f"{_meaning(report)}.", tuple(filter(None, lines)))


def _meaning(report: Report) -> str:
    asked = [v for v in report.verdicts if v.level is None and v.need != "-"]
    undecided = {v.metric for v in asked if v.word == "INCONCLUSIVE" and v.metric != NOT_MEASURED}
    if report.word == "INCONCLUSIVE" and undecided == {LEFT_OUT}:
        return "the task asks for factors that this run left out; probe without --factors"
    if report.word == "SAFE" and not report.data.labels:
        return "the judged changes do not move the features; no label was read"
    assert report.word is not None
    return SIGNS[report.word].meaning


def make_strip(index: ReportIndex) -> list[StripLine]:
    """Return the verdicts as lines of the page, the worst first."""
    groups = group_verdicts(index.report.verdicts)
    if index.is_collapsed:
        groups = _merge_collapsed(groups)
    return [_make_line(index, group) for group in groups]


def list_not_asked(report: Report) -> list[str]:
    """Return the factors that the task does not ask about."""
    return [format_name(verdict.factor) for verdict in report.verdicts if verdict.level is None and verdict.need == "-"]


def _merge_collapsed(groups: list[Group]) -> list[Group]:
    """Merge the measured factors into one group, because a collapsed encoder fails all of them for the same reason."""
    judged = [group for group in groups if group.badge not in NO_VERDICT]
    verdicts = tuple(verdict for group in judged for verdict in group.verdicts)
    merged = [Group(judged[0].badge, _shorten(verdicts[0]), verdicts)] if judged else []
    return merged + [group for group in groups if group.badge in NO_VERDICT]


def _make_line(index: ReportIndex, group: Group) -> StripLine:
    sign, names = BADGES[group.badge], ", ".join(map(format_name, group.factors))
    is_alone, count = len(group.verdicts) == 1, f"{len(group.verdicts)} factors"
    if group.badge in NO_VERDICT:
        why = ": ".join(filter(None, (group.badge, group.cause)))
        if is_alone:
            return StripLine(group.badge, sign, names, why)
        return StripLine(group.badge, sign, count, why, evidence=names)
    if index.is_collapsed:
        return StripLine(group.badge, sign, "Every factor", group.cause)
    if is_alone:
        return _make_factor_line(index, group.verdicts[0])
    details = tuple(
        FactorDetail(
            format_name(each.factor), index.needs(each.factor), _shorten(each), _evidence(each), _cell(index, each)
        )
        for each in group.verdicts
    )
    return StripLine(group.badge, sign, count, group.cause, group.needs, evidence=list_factors(group), factors=details)


def _make_factor_line(index: ReportIndex, verdict: Verdict) -> StripLine:
    factor = verdict.factor
    return StripLine(
        badge=verdict.word,
        sign=SIGNS[verdict.word],
        name=format_name(factor),
        text=_shorten(verdict),
        need=index.needs(factor),
        need_meaning=NEEDS[verdict.need],
        evidence=_evidence(verdict),
        cell=_cell(index, verdict),
        strengths=_strengths(index, factor),
    )


def _strengths(index: ReportIndex, factor: str) -> tuple[StrengthDetail, ...]:
    verdicts = [verdict for level in LEVELS if (verdict := index.verdict(factor, level)) is not None]
    if len(verdicts) < 2:
        return ()
    details = []
    for verdict in verdicts:
        is_judged = (verdict.level or 0) <= index.last_judged(factor)
        name = f"strength {verdict.level}, {verdict.need}{'' if is_judged else ', shown only'}"
        badge = get_badge(verdict)
        details.append(StrengthDetail(name, badge, BADGES[badge], _shorten(verdict)))
    return tuple(details)


def _cell(index: ReportIndex, verdict: Verdict) -> str:
    """Return the id of the heatmap cell that decided a verdict: the severest judged strength with that verdict."""
    factor, last = verdict.factor, index.last_judged(verdict.factor)
    deciding = [
        level
        for level in LEVELS
        if level <= last and (at := index.verdict(factor, level)) is not None and at.word == verdict.word
    ]
    return f"nis_w-{factor}-{max(deciding) if deciding else index.shown_level(factor)}"


def _evidence(verdict: Verdict) -> str:
    figure = verdict.figure
    parts = [f"{verdict.metric} {format_figure(figure)}"]
    if figure.value is None and figure.reason:
        parts = [f"{verdict.metric}: {figure.reason}"]
    parts += [
        f"{REFERENCES.get(name, name)} {format_number(value)}"
        for name, value in verdict.references.items()
        if value is not None
    ]
    return "; ".join([*parts, f"{figure.n} frames in {figure.clusters} clusters"])


def _shorten(verdict: Verdict) -> str:
    """Return a verdict's sentence without the factor's name and the calibration note; the page shows both elsewhere."""
    text = verdict.sentence.removeprefix(format_name(verdict.factor))
    return text.removeprefix(",").removeprefix(":").removesuffix(UNCALIBRATED).strip()
