"""Check that reports can be compared: they must use the same frames, and the same strengths of shared factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from robossl.errors import InputError
from robossl.probes.result import Report

MAX_REPORTS = 4


def check_count(count: int) -> None:
    """Refuse too few or too many reports.

    Raises:
        InputError: there are fewer than two or more than four reports.
    """
    if not 2 <= count <= MAX_REPORTS:
        raise InputError(f"got {count} reports to compare; pass 2 to {MAX_REPORTS} of them")


def check_same_frames(reports: Sequence[Report], origins: Sequence[str]) -> None:
    """Refuse reports whose frames, seed or strengths of shared factors differ from those of the first report.

    `origins` holds the name of each report for error messages.

    Raises:
        InputError: a report differs from the first report.
    """
    for report, origin in zip(reports[1:], origins[1:], strict=True):
        _check_pair(reports[0], report, origins[0], origin)


def _check_pair(first: Report, other: Report, origin: str, other_origin: str) -> None:
    facts = asdict(first.data), asdict(other.data)
    shared = ("sha256", "n_reference", "n_evaluation", "num_clusters", "resolution", "mask")
    pairs = [(name, facts[0][name], facts[1][name]) for name in shared]
    pairs.append(("seed", first.settings.get("seed"), other.settings.get("seed")))
    grids = [{(view.factor, view.level): dict(view.params) for view in each.views} for each in (first, other)]
    pairs += [
        (f"{f} {level}", was, grids[1][f, level]) for (f, level), was in grids[0].items() if (f, level) in grids[1]
    ]
    for name, was, now in pairs:
        if was != now:
            raise InputError(
                f"{origin} and {other_origin} were not made on the same frames ({name}: {was} and {now}); probe both "
                "encoders with the same --data and settings"
            )
