"""Group the factors that are undecided for the same cause, for the page and the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from robossl.probes.result import LEFT_OUT, NOT_MEASURED, Verdict

# From bad to good, then factors without a verdict.
WORST_FIRST = ("UNUSABLE", "RISKY", "INCONCLUSIVE", "SAFE IF TRAINED WITH IT", "SAFE", LEFT_OUT, NOT_MEASURED)


@dataclass(frozen=True, slots=True)
class Group:
    """Verdicts of factors with one badge and one cause; a verdict without a cause stands alone."""

    badge: str
    cause: str
    verdicts: tuple[Verdict, ...]

    @property
    def factors(self) -> list[str]:
        """Names of the factors."""
        return [verdict.factor for verdict in self.verdicts]

    @property
    def needs(self) -> str:
        """The needs of the task, such as INV or INV/EQUI."""
        return "/".join(dict.fromkeys(verdict.need for verdict in self.verdicts))


def get_badge(verdict: Verdict) -> str:
    """Return the word of a verdict, or the reason that it has none."""
    return verdict.metric if verdict.metric in (LEFT_OUT, NOT_MEASURED) else verdict.word


def group_verdicts(verdicts: Iterable[Verdict]) -> list[Group]:
    """Group the verdicts of factors, worst first, without verdicts of single strengths and factors not asked for."""
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
