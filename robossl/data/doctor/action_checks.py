"""Checks of actions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from robossl.data.doctor.column_checks import FEW_ROWS, columns_of, list_numbers
from robossl.data.doctor.facts import DataFacts, find_runs
from robossl.data.doctor.finding import Defect, Level
from robossl.data.doctor.limits import DoctorLimits

IDLE = 0.5  # share of an episode without a new action
MUCH_CLIPPED, SOME_CLIPPED = 0.5, 0.1  # shares of rows at the smallest or largest value: a warning, a note
FEW_VALUES = 5  # a value with fewer levels is a switch (an open or closed gripper), not clipped
JUMP = 8.0  # size of a sudden step, in usual steps
USUAL = 0.95  # quantile of the steps that are not 0, which is a usual step


def check_actions(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find a LeRobot data set without actions."""
    if facts.format == "lerobot" and not any(name.startswith("action") for name in columns_of(facts)):
        yield Defect("note", "", "there are no actions", "pretraining needs none; policies and world models do")


def check_idle(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find episodes in which the actions stay the same for more than `IDLE` of the time without a break."""
    for table in facts.tables:
        for name, values in table.columns.items():
            if not name.startswith("action") or len(values) < FEW_ROWS:
                continue
            runs = find_runs((values[1:] == values[:-1]).all(1))
            longest = max((end - first for first, end in runs), default=0) / (len(values) - 1)
            if longest > IDLE:
                remedy = "cut the pause off, or check the recorder"
                yield Defect("note", table.episode, f"{name} stays the same for long", remedy, f"{longest:.0%} of it")


def check_clipped(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find values of actions that are often exactly at their smallest or largest value, as clipping leaves them."""
    for name, parts in columns_of(facts).items():
        values = np.concatenate(parts)
        if not name.startswith("action") or len(values) < FEW_ROWS:
            continue
        at_end = np.maximum((values == values.min(0)).mean(0), (values == values.max(0)).mean(0))
        is_switch = np.array([len(np.unique(column)) < FEW_VALUES for column in values.T])
        found = np.flatnonzero((at_end > SOME_CLIPPED) & ~is_switch)
        if len(found):
            level: Level = "warning" if at_end[found].max() > MUCH_CLIPPED else "note"
            detail = f"indices {list_numbers(found)}, up to {at_end[found].max():.0%} of the rows"
            remedy = "look whether a limit cuts the commands off; a gripper or an unused joint may rest there"
            yield Defect(level, "", f"{name} is often exactly at its limit", remedy, detail)


def check_jumps(facts: DataFacts, limits: DoctorLimits) -> Iterator[Defect]:
    """Find sudden steps of actions: at least half of the values change by more than `JUMP` usual steps at once.

    A column of one value is left out: a gripper alone jumps by design. A gripper beside joints is outvoted.
    """
    for name, parts in columns_of(facts).items():
        if not name.startswith("action") or parts[0].shape[1] < 2 or facts.is_thinned:
            continue
        usual = _usual_steps(parts)
        for table in facts.tables:
            values = table.columns.get(name)
            if values is None or values.shape[1] != len(usual) or len(values) < 2:
                continue
            with np.errstate(invalid="ignore"):  # `check_finite` names infinite values
                steps = np.abs(np.diff(values.astype(np.float64), axis=0)) / usual
            jumps = np.flatnonzero(np.median(np.nan_to_num(steps, posinf=0.0), axis=1) > JUMP)
            if len(jumps):
                detail = f"{len(jumps)}, the first after row {jumps[0]}"
                remedy = "look there for a reset, a lost message or two joined takes, and cut the episode there"
                yield Defect("warning", table.episode, f"{name} jumps", remedy, detail)


def _usual_steps(parts: list[Float64[ndarray, "n d"]]) -> Float64[ndarray, " d"]:
    """Return the `USUAL` quantile of the steps of each value that are not 0; infinite for a value that never steps."""
    steps = np.abs(np.concatenate([np.diff(part, axis=0) for part in parts]))
    moving = [column[column > 0] for column in steps.T]
    return np.array([np.quantile(column, USUAL) if len(column) else np.inf for column in moving])
