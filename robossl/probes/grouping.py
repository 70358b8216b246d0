"""Grouping: factors that are undecided for one and the same cause are told as one, on the page and on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Verdict

# From bad to good, and at the end what has no verdict.
WORST_FIRST = ("UNUSABLE", "RISKY", "INCONCLUSIVE", "SAFE IF TRAINED WITH IT", "SAFE", LEFT_OUT, NOT_MEASURED)


@dataclass(frozen=True, slots=True)
class Group:
    """Verdicts of factors with one badge and one cause; a verdict that has no cause stands alone."""

    badge: str
    cause: str
    verdicts: tuple[Verdict, ...]

    @property
    def factors(self) -> list[str]:
        """Names of the factors."""
        return [verdict.factor for verdict in self.verdicts]

    @property
    def needs(self) -> str:
        """What the task needs of them, such as INV or INV/EQUI."""
        return "/".join(dict.fromkeys(verdict.need for verdict in self.verdicts))


def get_badge(verdict: Verdict) -> str:
    """What a verdict is shown as: its word, or that there is none."""
    return verdict.metric if verdict.metric in (LEFT_OUT, NOT_MEASURED) else verdict.word


def group_verdicts(verdicts: Iterable[Verdict]) -> list[Group]:
    """Group the verdicts of factors, the worst first; verdicts of single strengths and "not asked" are left out."""
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
