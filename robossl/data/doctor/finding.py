"""A finding of `robossl doctor data`, and the folding of equal findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from robossl.common.counts import format_count

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")  # worst first
NAMED = 3  # episodes that a folded finding names


class Defect(NamedTuple):
    """What a check found. Equal `what` and `remedy` are folded, so both say nothing about a single episode."""

    level: Level
    episode: str  # "" if the whole data set is meant
    what: str
    remedy: str
    detail: str = ""  # numbers of this episode


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding in the JSON document."""

    level: Level
    check: str
    episode: str
    what: str
    detail: str
    remedy: str


class FoldedFinding(NamedTuple):
    """Findings of one check that say the same about several episodes."""

    level: Level
    check: str
    episodes: str
    what: str
    remedy: str


def fold_findings(findings: Sequence[Finding]) -> list[FoldedFinding]:
    """Return one line for all findings that say the same, worst first, then those of the most episodes."""
    groups: dict[tuple[Level, str, str, str], list[Finding]] = {}
    for found in findings:
        groups.setdefault((found.level, found.check, found.what, found.remedy), []).append(found)
    ordered = sorted(groups.items(), key=lambda group: (LEVELS.index(group[0][0]), -len(group[1])))
    return [
        FoldedFinding(level, check, _name_episodes(found), _with_detail(what, found), remedy)
        for (level, check, what, remedy), found in ordered
    ]


def count_levels(findings: Iterable[Finding]) -> dict[Level, int]:
    """Return the number of findings of each level."""
    found = [finding.level for finding in findings]
    return {level: found.count(level) for level in LEVELS}


def _name_episodes(found: Sequence[Finding]) -> str:
    names = list(dict.fromkeys(finding.episode for finding in found if finding.episode))
    if len(names) <= 1:
        return names[0] if names else "all"
    dots = ", ..." if len(names) > NAMED else ""
    return f"{format_count(len(names), 'episode')}: {', '.join(names[:NAMED])}{dots}"


def _with_detail(what: str, found: Sequence[Finding]) -> str:
    details = list(dict.fromkeys(finding.detail for finding in found if finding.detail))
    if not details:
        return what
    return f"{what} ({details[0]}{'; ...' if len(details) > 1 else ''})"
