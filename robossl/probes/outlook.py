"""Find, before a run, the factors on which no encoder can be SAFE (a verdict), because labels or frames are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from robossl.probes.factors import FACTORS, resolve_factor
from robossl.probes.frames import Label, ProbeFrames, Split
from robossl.probes.label_maps import why_none
from robossl.probes.profile import FactorNeed, Profile, load_profile, profile_names
from robossl.probes.result import Need
from robossl.probes.retention import MIN_FRAMES
from robossl.probes.retrieval import GALLERY


@dataclass(frozen=True, slots=True)
class Outlook:
    """Factors that cannot get the verdict SAFE in this run, grouped by cause, with advice on what to do."""

    open: Mapping[str, tuple[str, ...]]  # names of factors that cannot become SAFE, by cause; empty if there are none
    advice: str  # text that says what to change for these factors; "" if there are none

    def lines(self) -> list[str]:
        """Return lines of text to print; an empty list if every factor can get the verdict SAFE."""
        if not self.open:
            return []
        order = sorted(self.open, key=lambda cause: cause == LEFT_OUT)
        causes = [f"cannot be SAFE: {', '.join(self.open[cause])}: {cause}" for cause in order]
        return [*causes, f"so this run cannot end SAFE, whatever the encoder: {self.advice}"]


def make_outlook(
    frames: ProbeFrames,
    split: Split,
    profile: Profile,
    *,
    factors: Sequence[str],
    labels: Mapping[str, Label],
    unavailable: Mapping[str, str],
) -> Outlook:
    """Find the factors of a profile that cannot become SAFE with these frames and labels.

    Args:
        frames: All frames.
        split: Which frames are reference frames (used for fits), and which frames are judged.
        profile: What the task needs of each factor.
        factors: Factors that the run measures.
        labels: Labels that the profile reads and the frames have, in the profile's order.
        unavailable: Factors that cannot be rendered for these frames, with the reason. They do not count.
    """
    conditions = _Conditions(split, profile, labels, frames)
    found: dict[str, list[str]] = {}
    for name, asked in profile.factors.items():
        needs = _list_needs(name, asked)
        if not needs or name in unavailable:
            continue
        if name not in factors:
            cause: str | None = LEFT_OUT
        else:
            cause = next((why for need in needs if (why := conditions.why_open(name, need))), None)
        if cause:
            found.setdefault(cause, []).append(name)
    return Outlook({cause: tuple(names) for cause, names in found.items()}, _advise(conditions, frames, found))


@dataclass(frozen=True, slots=True)
class _Conditions:
    split: Split
    profile: Profile
    labels: Mapping[str, Label]
    frames: ProbeFrames

    @property
    def clusters(self) -> int:
        return len(np.unique(self.frames.clusters[self.split.evaluation]))

    @property
    def least_clusters(self) -> float:
        return self.profile.thresholds.least_clusters(has_label=bool(self.labels))

    def why_open(self, factor: str, need: Need) -> str | None:
        """Return why no encoder can get the verdict SAFE on this factor; None if an encoder can.

        `need` is what the task needs of the factor, such as INV (ignore it).
        """
        if need == "EQUI" and not self.labels:
            if not self.profile.labels:
                return f"{NO_LABEL} {self.profile.name} names none"
            return f"{NO_LABEL} {self.profile.name} reads {', '.join(self.profile.labels)}: none of them is read here"
        least = self.profile.thresholds.min_clusters if need == "INFO" else self.least_clusters
        if self.clusters < least:
            unit = f"independent clusters ({self.frames.cluster_key})"
            return f"{self.clusters} {unit} are judged, {least:g} are needed{'' if self.labels else ' without labels'}"
        if need == "INFO":
            return None
        if not self.labels:
            judged = len(self.split.evaluation)
            return f"{judged} frames are judged, {GALLERY} are needed without labels" if judged < GALLERY else None
        family = resolve_factor(factor).family
        known = [name for name, label in self.labels.items() if not why_none(label.type, factor, family)]
        read = next(iter(self.labels)) if need == "INV" else next(iter(known), None)
        # If applying the factor leaves every label undefined, the factor is not measured and does not count.
        return self._why_unreadable(read) if read else None

    def _why_unreadable(self, name: str) -> str | None:
        """Return why no head can learn to predict a label, whatever the features are; None if a head can."""
        label = self.labels[name]
        sides = {"reference": self.split.reference, "judged": self.split.evaluation}
        for side, at in sides.items():
            values = label.values[at]
            values = values[np.isfinite(values).all(axis=1)]
            if len(values) < MIN_FRAMES and side == "reference":
                return f"{len(values)} reference frames have the label {name}, {MIN_FRAMES} are needed to fit a head"
            if not len(values) or (values == values[0]).all():
                return f"the label {name} is the same for all {side} frames that have it: there is nothing to read"
        return None


LEFT_OUT = "--factors leaves them out"
NO_LABEL = "the task must follow them (EQUI), which only a label can show;"


def _list_needs(name: str, asked: FactorNeed) -> list[Need]:
    last = min(asked.max_level, resolve_factor(name).num_levels)
    return [need for need in dict.fromkeys(asked.needs[:last]) if need != "-"]


def _advise(conditions: _Conditions, frames: ProbeFrames, found: Mapping[str, Sequence[str]]) -> str:
    """Return text that says what to change. `found` maps each cause to the factors that cannot be SAFE (a verdict)."""
    causes = " ".join(found)
    advice = []
    if NO_LABEL in causes:
        there = f" (there are: {', '.join(frames.labels)})" if frames.labels else ""
        free = [name for name in profile_names() if not load_profile(name, factors=FACTORS).labels]
        advice.append(f"name a label of a store with --columns TYPE NAME{there}")
        advice += [f"judge what needs no label with --profile {' or '.join(free)}"] if free else []
    if " are judged, " in causes:
        advice.append(_advise_more(conditions))
    if "the label " in causes:
        advice.append("give a label that varies and that more frames have")
    if LEFT_OUT in causes:
        advice.append("measure the whole profile, without --factors")
    return "; ".join(advice)


def _advise_more(conditions: _Conditions) -> str:
    """Return text that says what to change so that enough frames are judged: --frames, the data or the profile."""
    counts = np.unique(conditions.frames.clusters, return_counts=True)[1]
    least, why = conditions.least_clusters, ""
    if math.isinf(least):
        return "lower inv_r1 in the profile, because no number of frames shows that all views find their frame"
    if not conditions.labels and GALLERY / counts.mean() > least:
        least = GALLERY / counts.mean()
        why = f" ({GALLERY} frames must be judged, {len(conditions.split.evaluation)} are)"
    if len(counts) >= 2 * least:
        return f"judge more frames (--frames {max(least, GALLERY):g})"
    return f"add episodes or scenes until there are {math.ceil(2 * least)}: half of them are judged{why}"
