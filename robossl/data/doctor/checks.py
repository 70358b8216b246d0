"""CHECKS: the checks of `robossl doctor data` by name. To add one, write a function and add its line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.finding import Defect, Finding
from robossl.data.doctor.limits import DoctorLimits
from robossl.data.doctor.picture_checks import (
    check_blank,
    check_frozen,
    check_near_duplicates,
    check_sizes,
    check_splits,
)
from robossl.data.doctor.table_checks import (
    check_actions,
    check_constant,
    check_counts,
    check_drift,
    check_files,
    check_finite,
    check_idle,
    check_lengths,
    check_licence,
    check_notes,
    check_rates,
    check_shift,
    check_still,
    check_times,
)

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
