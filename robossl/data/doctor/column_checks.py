"""Checks of the values of columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.data.doctor.facts import DataFacts
from robossl.data.doctor.finding import Defect
from robossl.data.doctor.limits import DoctorLimits

STILL, MOST_EPISODES = 0.8, 0.5  # share of equal steps of a value that hardly moves, and the share of such episodes
SHIFT = 3.0  # distance of the means of the first and the last quarter of the episodes, in standard deviations
FEW_ROWS, FEW_EPISODES = 10, 8  # with fewer, nothing is said about values that stay, or that shift


def check_finite(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find NaN and infinite values in tables."""
    for table in facts.tables:
        if table.seconds is not None and not np.isfinite(table.seconds).all():
            yield Defect("error", table.episode, "times are NaN or infinite", "write the times again")
        for name, values in table.columns.items():
            wrong = np.flatnonzero(~np.isfinite(values).all(1))
            if len(wrong):
                detail = f"{len(wrong)} of {len(values)} rows, the first is {wrong[0]}"
                remedy = "interpolate the rows, or remove the episode: one NaN ruins a whole training"
                yield Defect("error", table.episode, f"{name} is NaN or infinite", remedy, detail)


def check_constant(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find columns, and values of columns, that never change."""
    for name, parts in columns_of(facts).items():
        values = np.concatenate(parts)
        if len(values) < FEW_ROWS:
            continue
        fixed = np.flatnonzero((values == values[0]).all(0))
        if len(fixed) == values.shape[1]:
            yield Defect("warning", "", f"column {name} never changes", "check the sensor, or leave the column out")
        elif len(fixed):
            remedy = "normalising divides by zero there; leave them out"
            yield Defect("note", "", f"{name} has values that never change", remedy, f"indices {list_numbers(fixed)}")


def check_still(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find values that hardly change in most episodes (a stuck actuator, or a joint that the task does not use)."""
    for name, parts in columns_of(facts).items():
        parts = [part for part in parts if len(part) >= FEW_ROWS]
        if not parts:
            continue
        still = np.stack([(np.diff(part, axis=0) == 0).mean(0) > STILL for part in parts]).mean(0)
        constant = (np.concatenate(parts) == parts[0][0]).all(0)
        found = np.flatnonzero((still > MOST_EPISODES) & ~constant)
        if len(found):
            detail = f"indices {list_numbers(found)}, up to {still[found].max():.0%} of the episodes"
            yield Defect("note", "", f"{name} hardly changes in most episodes", "check the actuator", detail)


def check_shift(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find columns whose mean differs much between the first and the last quarter of the episodes."""
    for name, parts in columns_of(facts).items():
        quarter = len(parts) // 4
        if len(parts) < FEW_EPISODES:
            continue
        first, last = np.concatenate(parts[:quarter]), np.concatenate(parts[-quarter:])
        spread = np.sqrt((first.var(0) + last.var(0)) / 2)
        far = np.abs(first.mean(0) - last.mean(0)) / np.where(spread > 0, spread, np.inf)
        if np.isfinite(far).all() and far.max() > SHIFT:
            detail = f"index {far.argmax()}: {far.max():.1f} standard deviations"
            remedy = "the robot or its task was changed; split by time, and look at the values"
            yield Defect("note", "", f"{name} shifts between the first and the last episodes", remedy, detail)


def columns_of(facts: DataFacts) -> dict[str, list[Float[ndarray, "n d"]]]:
    """Return the finite rows of each column, one array per episode. Episodes with another width are left out."""
    found: dict[str, list[ndarray]] = {}
    for table in facts.tables:
        for name, values in table.columns.items():
            rows = values[np.isfinite(values).all(1)].astype(np.float64)
            parts = found.setdefault(name, [])
            if len(rows) and (not parts or parts[0].shape[1] == rows.shape[1]):
                parts.append(rows)
    return {name: parts for name, parts in found.items() if parts}


def list_numbers(numbers: ndarray) -> str:
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
