"""The three rules that give verdicts: for factors that features must ignore (INV), follow (EQUI) or contain (INFO)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robossl.probes.evidence import Evidence, is_unknown, percent, two_digits
from robossl.probes.profile import Thresholds
from robossl.probes.result import NOT_MEASURED, UNREADABLE, Figure, Word
from robossl.probes.retrieval import GALLERY

MORE = "more frames are needed to tell"
WITHOUT_LABELS = ("nis_w and r1", "nis_w", "r1")  # metrics that decide on need INV if no label is read
NO_LABEL = "no label of the task can test whether a head follows the factor"


@dataclass(frozen=True, slots=True)
class Ruling:
    """The result of a rule for one factor at one level: a verdict (`word`) with its evidence."""

    word: Word
    metric: str  # name of the metric that decided the verdict
    figure: Figure  # the encoder's value of that metric
    references: Mapping[str, float | None]  # the references' (baselines') values of that metric
    text: str  # text of the evidence, for the verdict's sentence
    # Reason why the rule could not decide. This text contains no measured value, so that factors with the same reason
    # can be grouped.
    cause: str = ""


def judge_invariance(seen: Evidence, limits: Thresholds) -> Ruling:
    """Judge the need INV (features must ignore the factor).

    On changed frames, a head must keep its score at predicting the label of the unchanged frame. Without labels,
    features must not move.
    """
    label, kept = seen.retention("same")
    if label is None or kept is None:
        return _invariant_without_labels(seen, limits)
    metric = f"retention of {label} (same label)"
    others = seen.others("retention", label=label, head="same")
    if kept.low is None or kept.high is None:
        return Ruling("INCONCLUSIVE", metric, kept, others, *_why_none(seen, kept, label, "same"))
    text = f"the {label} head keeps {percent(kept)} of its clean score{seen.beside(others, percent=True)}"
    if kept.low >= limits.inv_retention:
        return Ruling("SAFE", metric, kept, others, text)
    if kept.high < limits.inv_retention:
        text += f"; it must keep {limits.inv_retention:.0%}"
        if others and all(value is not None and value < limits.inv_retention for value in others.values()):
            text += "; no reference does either: the cause may be the head, which has not seen this change"
        return Ruling("RISKY", metric, kept, others, text)
    return Ruling("INCONCLUSIVE", metric, kept, others, f"{text}; {MORE}", MORE)


def _invariant_without_labels(seen: Evidence, limits: Thresholds) -> Ruling:
    nis_w, r1 = seen.nis_w, seen.cell("r1")
    others = seen.others("nis_w")
    if nis_w.low is None or nis_w.high is None or r1.low is None or r1.high is None:
        reason = nis_w.reason or r1.reason or "no figure"
        return Ruling("INCONCLUSIVE", "nis_w and r1", nis_w, others, reason, reason)
    text = (
        f"whitened invariance {two_digits(nis_w)}{seen.beside(others)}, and {percent(r1)} of views find their own frame"
    )
    if nis_w.low >= limits.inv_nis_w and r1.low >= limits.inv_r1:
        if r1.n >= GALLERY:
            return Ruling("SAFE", "nis_w and r1", nis_w, others, text)
        cause = f"among {r1.n} frames: {GALLERY} are needed to call that safe"
        return Ruling("INCONCLUSIVE", "nis_w and r1", nis_w, others, f"{text}, {cause}", cause)
    if nis_w.high < limits.inv_nis_w_risky:
        return Ruling("RISKY", "nis_w", nis_w, others, text)
    if r1.high < limits.inv_r1_risky:
        return Ruling("RISKY", "r1", r1, seen.others("r1"), text)
    cause = f"a label or {MORE}" if seen.profile.labels else MORE
    # The verdict shows a metric that misses its bound.
    metric, figure = ("r1", r1) if nis_w.low >= limits.inv_nis_w else ("nis_w", nis_w)
    return Ruling("INCONCLUSIVE", metric, figure, seen.others(metric), f"{text}; {cause}", cause)


def judge_equivariance(seen: Evidence, limits: Thresholds) -> Ruling:
    """Judge the need EQUI (features must follow the factor).

    The factor changes the label. Therefore features must contain the factor, and a head must predict the changed label.
    """
    forgotten = _over_invariant(seen, limits)
    if forgotten is not None and forgotten.word == "RISKY":
        # Return this before the heads are tested. A head keeps its score on a label that the factor does not change,
        # and that would hide that the encoder lost the factor.
        return forgotten
    label, kept = seen.retention("clean")
    if label is None or kept is None:
        return forgotten or _on_decoding(seen, "INCONCLUSIVE", NO_LABEL, NO_LABEL)
    # If no label of the task is defined after the factor was applied, this must not count against the encoder.
    if is_unknown(kept):
        return Ruling("INCONCLUSIVE", NOT_MEASURED, kept, {}, kept.reason or "")
    trained = seen.retention("augmented", label=label)[1]
    if trained is not None and trained.high is not None and trained.high < limits.equi_retention:
        return _not_equivariant(seen, label, trained)
    if kept.low is None or kept.high is None:
        others = seen.others("retention", label=label, head="clean")
        why = _why_none(seen, kept, label, "clean")
        return forgotten or Ruling("INCONCLUSIVE", f"retention of {label} (clean head)", kept, others, *why)
    return _following(seen, limits, label, kept, trained, forgotten)


def _why_none(seen: Evidence, kept: Figure, label: str, head: str) -> tuple[str, str]:
    """Return two texts that say why a retention has no value: one for the verdict's sentence, one for its cause.

    The cause contains no measured value.
    """
    reason = kept.reason or "no figure"
    if not reason.startswith(UNREADABLE):
        return reason, reason
    wanted = seen.profile.thresholds.readable
    cause = f"{UNREADABLE}: {label} is not surely read off clean frames (lower bound below {wanted:g})"
    return f"{reason}{seen.read_by(label, head)}", cause


def _following(
    seen: Evidence, limits: Thresholds, label: str, kept: Figure, trained: Figure | None, forgotten: Ruling | None
) -> Ruling:
    metric, others = f"retention of {label} (clean head)", seen.others("retention", label=label, head="clean")
    beside = seen.beside(others, percent=True)
    text = f"the clean {label} head keeps {percent(kept)} of its score on the moved label{beside}"
    assert kept.low is not None and kept.high is not None
    follows = kept.low >= limits.equi_retention
    learns = trained is not None and trained.low is not None and trained.low >= limits.equi_retention
    if trained is not None and learns and kept.high < limits.equi_retention:
        text += f"; trained with the factor, it keeps {percent(trained)}"
        return Ruling("SAFE IF TRAINED WITH IT", f"retention of {label} (augmented head)", trained, others, text)
    decoded = f"the factor is decoded at {seen.decoded}"
    if follows and _readable(seen, limits):
        return Ruling("SAFE", metric, kept, others, f"{text}; {decoded}")
    if forgotten is not None:
        return forgotten
    if follows:
        cause = "a head follows, but the factor is decoded too weakly, or on too few frames, to decide"
        text = f"{text}, but {decoded}: too weakly, or on too few frames, to decide"
        return _on_decoding(seen, "INCONCLUSIVE", text, cause)
    return Ruling("INCONCLUSIVE", metric, kept, others, f"{text}; {MORE}", MORE)


def _not_equivariant(seen: Evidence, label: str, trained: Figure) -> Ruling:
    others = seen.others("retention", label=label, head="augmented")
    beside = seen.beside(others, percent=True)
    text = f"not equivariant: even trained with the factor, the {label} head keeps {percent(trained)}{beside}"
    return Ruling("RISKY", f"retention of {label} (augmented head)", trained, others, text)


def _readable(seen: Evidence, limits: Thresholds) -> bool:
    """Return whether a probe decodes the factor well enough from the features.

    Its score must reach both a fixed bound and a share of the decoding score of the baseline "pixels".
    """
    pixels = seen.others("decoding").get("pixels") or 0.0
    bar = max(limits.equi_decoding, limits.equi_share_of_pixels * pixels)
    return seen.decoding.low is not None and seen.decoding.low >= bar


def _over_invariant(seen: Evidence, limits: Thresholds) -> Ruling | None:
    """Judge whether the encoder lost the factor: its features do not move, and the factor cannot be decoded from them.

    If it lost the factor, return RISKY; but if no reference (baseline) can decode the factor either, return
    INCONCLUSIVE. If the encoder did not lose the factor, or if this was not measured, return None.
    """
    nis_w, decoded = seen.nis_w, seen.decoding
    if nis_w.low is None or decoded.high is None:
        return None
    if nis_w.low < limits.over_invariant_nis_w or decoded.high >= limits.over_invariant_decoding:
        return None
    if not seen.decoded_by_reference(limits.equi_decoding):
        text = f"data has no canonical orientation: neither this encoder ({seen.decoded}) nor a reference reads"
        cause = "data has no canonical orientation: neither this encoder nor a reference reads the factor off it"
        return _on_decoding(seen, "INCONCLUSIVE", f"{text} the factor off these frames", cause)
    text = f"over-invariant: whitened invariance {two_digits(nis_w)}, and the factor is decoded at {seen.decoded}"
    return _on_decoding(seen, "RISKY", f"{text} (0 is chance){seen.beside(seen.others('decoding'))}")


def judge_information(seen: Evidence, limits: Thresholds) -> Ruling:
    """Judge the need INFO (features must contain the factor): a probe must decode the factor from the features."""
    decoded = seen.decoding
    if decoded.low is None or decoded.high is None:
        reason = decoded.reason or "the factor was not decoded"
        return _on_decoding(seen, "INCONCLUSIVE", reason, reason)
    beside = seen.beside(seen.others("decoding"))
    text = f"the factor is decoded at {seen.decoded} (0 is chance, 1 perfect){beside}"
    if decoded.low >= limits.info_decoding:
        return _on_decoding(seen, "SAFE", text)
    if decoded.high >= limits.info_decoding_risky:
        cause = f"the factor is not surely decoded at {limits.info_decoding:g}, nor surely lost"
        return _on_decoding(seen, "INCONCLUSIVE", f"{text}; {limits.info_decoding:g} is needed", cause)
    if seen.decoded_by_reference(limits.equi_decoding):
        return _on_decoding(seen, "RISKY", f"the information is lost: {text}")
    cause = "no reference reads it off these frames either"
    return _on_decoding(seen, "INCONCLUSIVE", f"{cause}: {text}", cause)


def _on_decoding(seen: Evidence, word: Word, text: str, cause: str = "") -> Ruling:
    return Ruling(word, seen.decoding_name, seen.decoding, seen.others("decoding"), text, cause)
