"""Intervals of a share of successes."""

from __future__ import annotations

from robossl.measure.bootstrap import LEVEL


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson, JASA 1927), for independent trials.

    >>> low, high = wilson_interval(6, 6)
    >>> round(low, 2), round(high, 2)
    (0.61, 1.0)
    """
    from scipy.stats import binomtest

    found = binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)
