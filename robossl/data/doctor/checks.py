"""CHECKS: the checks of `robossl doctor data` by name. To add one, write a function and add its line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robossl.data.doctor.action_checks import check_actions, check_clipped, check_idle, check_jumps
from robossl.data.doctor.column_checks import check_constant, check_finite, check_shift, check_still
from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.file_checks import check_counts, check_files, check_licence, check_notes
from robossl.data.doctor.finding import Defect, Finding
from robossl.data.doctor.limits import DoctorLimits
from robossl.data.doctor.picture_checks import (
    check_blank,
    check_frozen,
    check_near_duplicates,
    check_sizes,
    check_splits,
)
from robossl.data.doctor.time_checks import check_drift, check_lengths, check_rates, check_times

Check = Callable[[DataFacts, DoctorLimits], Iterator[Defect]]

CHECKS: dict[str, Check] = {
    "files": check_files,
    "counts": check_counts,
    "times": check_times,
    "drift": check_drift,
    "frozen": check_frozen,
    "near-duplicates": check_near_duplicates,
    "blank": check_blank,
    "sizes": check_sizes,
    "rates": check_rates,
    "lengths": check_lengths,
    "constant": check_constant,
    "still": check_still,
    "idle": check_idle,
    "clipped": check_clipped,
    "action-jumps": check_jumps,
    "shift": check_shift,
    "finite": check_finite,
    "splits": check_splits,
    "licence": check_licence,
    "actions": check_actions,
    "notes": check_notes,
}


def run_checks(facts: DataFacts, limits: DoctorLimits) -> list[Finding]:
    """Run all checks and return their findings, in the order of the checks."""
    return [
        Finding(defect.level, name, defect.episode, defect.what, defect.detail, defect.remedy)
        for name, check in CHECKS.items()
        for defect in check(facts, limits)
    ]
