"""Group factors whose verdicts have the same cause. The HTML page and the terminal show such a group in one line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Verdict

# Verdicts from bad to good, then the two marks of factors without a verdict.
WORST_FIRST = ("UNUSABLE", "RISKY", "INCONCLUSIVE", "SAFE IF TRAINED WITH IT", "SAFE", LEFT_OUT, NOT_MEASURED)


@dataclass(frozen=True, slots=True)
class Group:
    """Verdicts with the same word (such as SAFE) and cause. A verdict without a cause is a group of its own."""

    badge: str
    cause: str
    verdicts: tuple[Verdict, ...]

    @property
    def factors(self) -> list[str]:
        """Names of the factors in this group."""
        return [verdict.factor for verdict in self.verdicts]

    @property
    def needs(self) -> str:
        """What the task needs of these factors, such as INV (ignore it) or INV/EQUI (ignore or follow it)."""
        return "/".join(dict.fromkeys(verdict.need for verdict in self.verdicts))


def get_badge(verdict: Verdict) -> str:
    """Return the word of a verdict, such as SAFE; if there is no verdict, return "left out" or "not measured"."""
    return verdict.metric if verdict.metric in (LEFT_OUT, NOT_MEASURED) else verdict.word


def group_verdicts(verdicts: Iterable[Verdict]) -> list[Group]:
    """Group the verdicts on whole factors; return the groups, worst first.

    Verdicts on a single strength are left out. Factors with the need "-" (the task needs nothing) are left out too.
    """
    found: dict[tuple[str, str], list[Verdict]] = {}
    for number, verdict in enumerate(verdicts):
        if verdict.level is not None or verdict.need == "-":
            continue
        shown = get_badge(verdict)
        has_verdict = shown == verdict.word
        key = (verdict.cause or f"#{number}") if has_verdict else (verdict.figure.reason or "")
        found.setdefault((shown, key), []).append(verdict)
    groups = [Group(shown, "" if key.startswith("#") else key, tuple(each)) for (shown, key), each in found.items()]
    return sorted(groups, key=lambda group: WORST_FIRST.index(group.badge))
