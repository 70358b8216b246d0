"""Judge an encoder: turn its measurements (readings) and a task profile into verdicts (such as SAFE) with evidence.

A verdict depends on the bounds of confidence intervals, never on a value alone. The verdict on a factor is the worst
verdict of its levels (strengths) up to the profile's `max_level`. Higher levels are shown but do not count. If the
evidence does not suffice, the verdict is INCONCLUSIVE and its sentence says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from robossl.measure.figures import missing
from robossl.probes.evidence import Evidence
from robossl.probes.meaning import describe_record
from robossl.probes.profile import Profile
from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Need, Readings, Verdict, Word
from robossl.probes.rules import WITHOUT_LABELS, Ruling, judge_equivariance, judge_information, judge_invariance

# Verdicts from good to bad.
ORDER: tuple[Word, ...] = ("SAFE", "SAFE IF TRAINED WITH IT", "INCONCLUSIVE", "RISKY", "UNUSABLE")
UNCALIBRATED = " (uncalibrated thresholds)"


def judge(
    readings: Readings,
    references: Mapping[str, Readings],
    profile: Profile,
    *,
    unmeasured: Mapping[str, str] | None = None,
) -> tuple[Verdict, ...]:
    """Return all verdicts for a task: for each factor a verdict on the whole factor, then one on each level.

    Args:
        readings: Measurements of the encoder.
        references: Measurements of the baselines "pixels" and "random_init".
        profile: What the task needs of each factor.
        unmeasured: Factors that cannot be measured on these frames, with the reason.
    """
    found: list[Verdict] = []
    for factor, asked in profile.factors.items():
        levels = sorted({cell.level for cell in readings.cells if cell.factor == factor})
        each = []
        for level in levels:
            need = asked.needs[level - 1]
            if need != "-":
                each.append(_judge(Evidence(readings, references, profile, factor, level), need))
        judged = [verdict for verdict in each if verdict.level is not None and verdict.level <= asked.max_level]
        if judged:
            worst = max(judged, key=lambda verdict: (ORDER.index(verdict.word), verdict.level))
            found += [replace(worst, level=None), *each]
        elif not levels and any(need != "-" for need in asked.needs[: asked.max_level]):
            need = next(need for need in asked.needs if need != "-")
            found.append(_unmeasured(factor, need, (unmeasured or {}).get(factor)))
    return tuple(found)


def find_worst_word(verdicts: Iterable[Verdict]) -> Word | None:
    """Return the word (such as SAFE) of the worst of the factors' verdicts; None if no factor counts.

    Factors that cannot be measured on these frames do not count. Factors that the run left out count as INCONCLUSIVE.
    """
    words = [v.word for v in verdicts if v.level is None and v.metric != NOT_MEASURED]
    return max(words, key=ORDER.index, default=None)


def judge_level(seen: Evidence) -> Verdict | None:
    """Return the verdict on one factor at one level; None if the profile needs nothing of it there."""
    asked = seen.profile.factors.get(seen.factor)
    need = asked.needs[seen.level - 1] if asked else "-"
    return None if need == "-" else _judge(seen, need)


def _judge(seen: Evidence, need: Need) -> Verdict:
    rule = {"INV": judge_invariance, "EQUI": judge_equivariance, "INFO": judge_information}[need]
    ruling = _rule_collapsed(seen) or _check_clusters(seen, rule(seen, seen.profile.thresholds))
    text = ruling.text
    if ruling.word.startswith("SAFE") and "precision-fragile" in seen.readings.health.flags:
        error = seen.readings.health.fp16_error or 0.0
        text = f"in fp32 only (half precision moves features by {error:.0%} of their spread): {text}"
    calibration = "" if seen.profile.calibrated else UNCALIBRATED
    if meant := describe_record(ruling.word, seen.profile.calibration):
        calibration += f" ({meant})"
    return Verdict(
        factor=seen.factor,
        level=seen.level,
        need=need,
        word=ruling.word,
        metric=ruling.metric,
        figure=ruling.figure,
        references=ruling.references,
        sentence=f"{seen.factor.replace('_', ' ')}, level {seen.level}: {text}{calibration}",
        cause=ruling.cause,
    )


def _unmeasured(factor: str, need: Need, reason: str | None) -> Verdict:
    metric, why = (NOT_MEASURED, reason) if reason else (LEFT_OUT, "this run was asked for other factors")
    sentence = f"{factor.replace('_', ' ')}: {metric}: {why}"
    return Verdict(factor, None, need, "INCONCLUSIVE", metric, missing(why), {}, sentence, why)


def _rule_collapsed(seen: Evidence) -> Ruling | None:
    health = seen.readings.health
    if "collapsed" not in health.flags:
        return None
    if health.rankme_centred is None:
        text = "the features are not finite"
    else:
        floor = "not measurable" if health.floor_r1 is None else f"{health.floor_r1:.2f}"
        text = (
            f"the features have collapsed: spread {health.rel_std or 0:.1e} of their mean, rank "
            f"{health.rankme_centred:.1f}, R@1 under one grey level of noise {floor}"
        )
    return Ruling("UNUSABLE", "health", missing("collapsed"), {}, text, text)


def _check_clusters(seen: Evidence, ruling: Ruling) -> Ruling:
    """Return the ruling; if it is based on too few independent clusters of frames, change its word to INCONCLUSIVE."""
    clusters, limits = ruling.figure.clusters, seen.profile.thresholds
    if not 0 < clusters < limits.min_clusters:
        return ruling
    least = limits.least_clusters(has_label=ruling.metric not in WITHOUT_LABELS)
    few = f"{clusters} independent clusters of frames, {least:g} are needed: add episodes or scenes, half are judged"
    return replace(ruling, word="INCONCLUSIVE", text=f"{few}; so far: {ruling.text}", cause=few)
