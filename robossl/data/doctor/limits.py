"""The limits of `robossl doctor data` that a user can set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DoctorLimits:
    """Lengths in seconds that decide what is a finding."""

    clip_seconds: float = 1.0  # an episode must be at least this long
    frozen_seconds: float = 1.0  # equal frames for this long are a finding
