"""Checks of actions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from robossl.data.doctor.column_checks import FEW_ROWS, columns_of
from robossl.data.doctor.facts import DataFacts, find_runs
from robossl.data.doctor.finding import Defect
from robossl.data.doctor.limits import DoctorLimits

IDLE = 0.5  # share of an episode without a new action


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
            runs = find_runs((np.diff(values, axis=0) == 0).all(1))
            longest = max((end - first for first, end in runs), default=0) / (len(values) - 1)
            if longest > IDLE:
                remedy = "cut the pause off, or check the recorder"
                yield Defect("note", table.episode, f"{name} stays the same for long", remedy, f"{longest:.0%} of it")
