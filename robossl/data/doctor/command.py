"""`robossl doctor data PATH`: say what in a data set or a store would hurt later, with the remedy."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from robossl.common.checks import check_positive
from robossl.common.counts import format_count
from robossl.common.progress import Progress
from robossl.data.doctor.checks import CHECKS, run_checks
from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.finding import Finding, count_levels, fold_findings
from robossl.data.doctor.limits import DoctorLimits
from robossl.data.doctor.reading import read_source_facts, read_store_facts
from robossl.data.manifest import is_store
from robossl.data.store import open_store
from robossl.errors import InputError

SCHEMA = "robossl.doctor.data/1"
COLOURS = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def doctor_data(
    path: Path,
    *,
    all: bool = False,
    episodes: int = 20,
    format: str = "auto",
    clip_seconds: float = 1.0,
    frozen_seconds: float = 1.0,
    json: bool = False,
) -> int:
    """Say what in a data set or a store would hurt later. The exit code is 1 if there is an error.

    Tables, times and files of all episodes are read. Frames are decoded for some episodes only.

    Args:
        path: a folder or file that `robossl ingest` could read, or a store.
        all: decode the frames of all episodes.
        episodes: number of episodes to decode, spread evenly over the data set.
        format: format of the path, as for `robossl ingest`.
        clip_seconds: length of a clip; shorter episodes are a finding.
        frozen_seconds: length of a stretch of equal frames that is a finding.
        json: print JSON instead of lines.

    Returns:
        0, or 1 if there is an error.

    Raises:
        InputError: the path cannot be read as any format, or a number is not positive.
    """
    facts, findings = examine_data(
        path,
        max_episodes=None if all else episodes,
        format=format,
        limits=DoctorLimits(clip_seconds, frozen_seconds),
    )
    if json:
        sys.stdout.write(json_format.dumps(_document(facts, findings), indent=1, ensure_ascii=False) + "\n")
    else:
        _print(facts, findings)
    return 1 if count_levels(findings)["error"] else 0


def examine_data(
    path: Path, *, max_episodes: int | None = 20, format: str = "auto", limits: DoctorLimits | None = None
) -> tuple[DataFacts, list[Finding]]:
    """Read a data set or a store and return its facts and the findings of all checks.

    Args:
        path: a folder or file that `robossl ingest` could read, or a store.
        max_episodes: number of episodes to decode; None for all.
        format: format of the path, as for `robossl ingest`.
        limits: limits of the checks.

    Raises:
        InputError: the path cannot be read as any format, or a number is not positive.
    """
    limits = limits or DoctorLimits()
    check_positive(episodes=max_episodes, clip_seconds=limits.clip_seconds, frozen_seconds=limits.frozen_seconds)
    with Progress(unit="episodes", stderr=True) as progress:
        if is_store(path):
            if format != "auto":
                raise InputError(f"{path} is a store, got --format {format}; leave the format out")
            facts = read_store_facts(open_store(path), max_episodes=max_episodes, watch=progress.advance)
        else:
            facts = read_source_facts(path, format=format, max_episodes=max_episodes, watch=progress.advance)
    return facts, run_checks(facts, limits)


def _document(facts: DataFacts, findings: list[Finding]) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "path": facts.path,
        "format": facts.format,
        "num_episodes": facts.num_episodes,
        "num_decoded": len(facts.pictures),
        "counts": count_levels(findings),
        "checks": list(CHECKS),
        "findings": [asdict(finding) for finding in findings],
    }


def _print(facts: DataFacts, findings: list[Finding]) -> None:
    console = Console()
    decoded = f"frames of {len(facts.pictures)} decoded"
    more = "" if len(facts.pictures) >= facts.num_episodes else "; --all decodes all"
    counted = f"{format_count(facts.num_episodes, 'episode')}, {decoded}{more}"
    console.print(escape(f"{facts.path} ({facts.format}): {counted}"), soft_wrap=True)
    for line in fold_findings(findings):
        level = f"[{COLOURS[line.level]}]{line.level:7}[/]"
        said = f"{line.check:15}  {line.episodes}: {line.what}; {line.remedy}"
        console.print(f"{level}  {escape(said)}", soft_wrap=True, highlight=False)
    counts = [format_count(number, level) for level, number in count_levels(findings).items()]
    console.print(f"{len(CHECKS)} checks: {', '.join(counts)}")
