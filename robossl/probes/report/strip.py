"""The verdict strip: one line a factor, what the task needs, what came out, and the evidence in one sentence."""

from __future__ import annotations

from html import escape

from robossl.probes.grouping import Group, badge, grouped
from robossl.probes.report.lookup import LEVELS, Lookup
from robossl.probes.report.words import BADGES, SIGNS, counted, listed, read_less, short, title, with_interval
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


def render_strip(look: Lookup) -> str:
    """The strip; without a task, how to get one."""
    report = look.report
    if report.task is None:
        return (
            '<section id="verdicts"><h2>Verdicts</h2><p class="lead">None: no task was named. <code>robossl probe run '
            "ENCODER --data DATA --profile PROFILE</code> judges these figures by what a task needs.</p></section>"
        )
    lines = "".join(_group(look, group) for group in _groups(look))
    free = [title(verdict.factor) for verdict in report.verdicts if verdict.level is None and verdict.need == "-"]
    rest = f'<p class="count">Not asked by this task: {escape(", ".join(free))}.</p>' if free else ""
    return (
        f'<section id="verdicts"><h2>Verdicts for {escape(report.task.profile)}</h2><p class="lead">The worst first; '
        "the verdict of a factor is that of its worst strength among those that are judged. Factors that are open for "
        "one and the same cause share a line.</p>"
        f'<ol class="strip-list">{lines}</ol>{rest}</section>'
    )


def _groups(look: Lookup) -> list[Group]:
    """All groups; of a collapsed encoder the same holds for every factor that was measured."""
    groups = grouped(look.report.verdicts)
    if not look.is_collapsed:
        return groups
    judged = [group for group in groups if group.badge not in NO_VERDICT]
    verdicts = tuple(verdict for group in judged for verdict in group.verdicts)
    whole = [Group(judged[0].badge, _sentence(verdicts[0]), verdicts)] if judged else []
    return whole + [group for group in groups if group.badge in NO_VERDICT]


def _group(look: Lookup, group: Group) -> str:
    """A line: of one factor with its evidence, or of all that share a cause."""
    if group.badge in NO_VERDICT:
        names, why = ", ".join(map(title, group.factors)), ": ".join(filter(None, (group.badge, group.cause)))
        if len(group.verdicts) == 1:
            return _item(group, f"<b>{escape(names)}:</b> {escape(why)}")
        words = f"<b>{len(group.verdicts)} factors:</b> {escape(why)}"
        return _item(group, words, f'<p class="evidence">{escape(names)}</p>')
    if look.is_collapsed:
        return _item(group, f"<b>Every factor:</b> {escape(group.cause)}")
    if len(group.verdicts) == 1:
        return _line(look, group.verdicts[0])
    each = "".join(
        f"<li><b>{escape(title(v.factor))}</b> ({escape(look.needs(v.factor))}): {escape(_sentence(v))}; "
        f"{_evidence(v)} {_cell(look, v)}</li>"
        for v in group.verdicts
    )
    words = f"<b>{len(group.verdicts)} factors:</b> {escape(group.cause)}"
    more = (
        f'<span class="need">{escape(group.needs)}</span><p class="evidence">{escape(listed(group))}</p>'
        f"<details><summary>factor by factor</summary><ul>{each}</ul></details>"
    )
    return _item(group, words, more)


def _item(group: Group, words: str, more: str = "") -> str:
    return f'<li class="{BADGES[group.badge].kind}">{chip(group.badge)}<p>{words}</p>{more}</li>'


def banner(report: Report) -> str:
    """The run's verdict in large, with what it rests on."""
    if report.task is None:
        return ""
    if report.word is None:
        return (
            f'<div class="verdict open" role="status"><span class="icon" aria-hidden="true">?</span><div><strong>No '
            f"verdict</strong> for {escape(report.task.profile)}: these frames can show no factor that it asks for; "
            "probe on other data, such as env:robossl/Push-v0.</div></div>"
        )
    sign = SIGNS[report.word]
    asked = [v for v in report.verdicts if v.level is None and v.need != "-"]
    open_ones = {v.metric for v in asked if v.word == "INCONCLUSIVE" and v.metric != NOT_MEASURED}
    meaning = sign.meaning
    if report.word == "INCONCLUSIVE" and open_ones == {LEFT_OUT}:
        meaning = "the task asks for factors that this run left out; probe without --factors"
    if report.word == "SAFE" and not report.data.labels:
        meaning = "the changes that it asks about leave the features where they are; no label was read"
    caution = (
        ""
        if report.task.calibrated
        else " The thresholds are uncalibrated: they have not been held against the success of a policy yet."
    )
    return (
        f'<div class="verdict {sign.kind}" role="status"><span class="icon" aria-hidden="true">{sign.icon}</span><div>'
        f"<strong>{report.word}</strong> for {escape(report.task.profile)}: {escape(meaning)}."
        f"<p>Factors: {escape(counted(report))}.{caution}</p>{_about(report)}{_less(report)}</div></div>"
    )


def _about(report: Report) -> str:
    """What the profile says that its verdicts mean."""
    return f"<p>{escape(report.task.about)}</p>" if report.task and report.task.about else ""


def _less(report: Report) -> str:
    """A line where heads on the references read more: all of little is kept easily."""
    said = [f"{label} is read better from {' and '.join(names)}" for label, names in read_less(report).items()]
    return f"<p>Off clean frames {escape('; '.join(said))}.</p>" if said else ""


def chip(word: str) -> str:
    """A verdict, or that there is none, as a small label: icon, word, colour."""
    sign = BADGES[word]
    return f'<span class="chip {sign.kind}"><i aria-hidden="true">{sign.icon}</i> {word}</span>'


def _line(look: Lookup, verdict: Verdict) -> str:
    factor, sentence = verdict.factor, _sentence(verdict)
    return (
        f'<li class="{SIGNS[verdict.word].kind}">{chip(verdict.word)}<p><b>{escape(title(factor))}:</b> '
        f"{escape(sentence)}</p>"
        f'<span class="need">{escape(look.needs(factor))} <small>{NEEDS[verdict.need]}</small></span>'
        f'<p class="evidence">{_evidence(verdict)} {_cell(look, verdict)}</p>{_levels(look, factor)}</li>'
    )


def _cell(look: Lookup, verdict: Verdict) -> str:
    """A link to the cell of the heatmap that decided: the severest judged strength with the factor's word."""
    factor = verdict.factor
    judged = [each for each in LEVELS if each <= look.last_judged(factor)]
    level = next(
        (
            each
            for each in reversed(judged)
            if (at := look.verdict(factor, each)) is not None and at.word == verdict.word
        ),
        look.shown_level(factor),
    )
    return f'<a href="#nis_w-{escape(factor)}-{level}">see the cell</a>'


def _evidence(verdict: Verdict) -> str:
    figure = verdict.figure
    parts = [f"{escape(verdict.metric)} {with_interval(figure)}"]
    if figure.value is None and figure.reason:
        parts = [f"{escape(verdict.metric)}: {escape(figure.reason)}"]
    parts += [
        f"{REFERENCES.get(name, escape(name))} {short(value)}"
        for name, value in verdict.references.items()
        if value is not None
    ]
    return "; ".join([*parts, f"{figure.n} frames in {figure.clusters} clusters"])


def _levels(look: Lookup, factor: str) -> str:
    found = [verdict for level in LEVELS if (verdict := look.verdict(factor, level)) is not None]
    if len(found) < 2:
        return ""
    lines = "".join(_level(verdict, is_judged=(verdict.level or 0) <= look.last_judged(factor)) for verdict in found)
    return f"<details><summary>by strength</summary><ul>{lines}</ul></details>"


def _level(verdict: Verdict, *, is_judged: bool) -> str:
    place = f"strength {verdict.level}, {escape(verdict.need)}{'' if is_judged else ', shown only'}"
    return f"<li>{place}: {chip(badge(verdict))} {escape(_sentence(verdict))}</li>"


def _sentence(verdict: Verdict) -> str:
    """Without the name of the factor, which stands before it, and what the banner says once for all."""
    named = verdict.sentence.removeprefix(title(verdict.factor))
    return named.removeprefix(",").removeprefix(":").removesuffix(UNCALIBRATED).strip()
