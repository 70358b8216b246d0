"""Schedules of values, such as the learning rate, as functions of the training step."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, steps: int, warmup_steps: int, start: float = 0.0, end: float = 0.0) -> float:
    """Return the learning rate of a step as a fraction of the peak.

    It rises linearly from `start` to 1 during the warm-up, then follows half a cosine to `end` (SGDR, arXiv:1608.03983,
    without restarts). No step has exactly `start` or `end`. Step 0 of a warm-up has
    `start + (1 - start) / warmup_steps`, and the last step of the run is still above `end`.

    Examples:
        >>> [round(warmup_cosine(s, steps=6, warmup_steps=2), 3) for s in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """
    if step < warmup_steps:
        return start + (1 - start) * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


def cosine(start: float, end: float, *, progress: float) -> float:
    """Return the value at `progress` (0 to 1) of half a cosine from `start` to `end`.

    This is the momentum schedule of BYOL and DINO.

    Examples:
        >>> [round(cosine(0.996, 1.0, progress=p), 3) for p in (0.0, 0.5, 1.0)]
        [0.996, 0.998, 1.0]
    """
    return end - (end - start) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
