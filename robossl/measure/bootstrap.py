"""Bootstrap over clusters: random draws that all scores share, and the two kinds of interval made from them.

A cluster is an episode, a scene or a picture. Its frames are near copies, so whole clusters are resampled, never single
frames. All encoders and reference encoders (baselines) are scored on the same draws, so differences are paired.

`evaluate` and `regress` use `percentile_interval`, with n - 1 draws from n clusters. With n draws, the variance would
be too small by the factor (n - 1) / n, which is a fifth at n = 5 (Rao & Wu, "Resampling inference with complex survey
data", JASA 1988). If a row of a table has several seeds (of training or random weights), each resample scores one.

`probe` uses `bca_interval`, because its statistics (ratios, shares near 1) are skewed (BCa: Efron, "Better bootstrap
confidence intervals", JASA 1987). Plain BCa intervals are too short at 20 to 60 clusters. Ours are therefore longer:
they use quantiles of Student's t and the factor sqrt(n / (n - 1)) of Hesterberg's expanded percentile ("What teachers
should know about the bootstrap", 2015). If the std of the resamples is smaller than the jackknife's standard
error, the resamples are stretched until both are equal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

LEVEL = 0.95


class Interval(NamedTuple):
    """An estimate with its interval, in the unit of the estimate; bounds are nan if there is no interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False if there is no interval."""
        return self.low > 0 or self.high < 0

    @property
    def is_defined(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


def draw_counts(
    strata: Int[ndarray, " g"], *, num_resamples: int, generator: np.random.Generator, fewer: int = 0
) -> Float[ndarray, "b g"]:
    """Return how often each resample draws each cluster (such as an episode), with replacement within its stratum.

    Args:
        strata: Stratum of each cluster. For no strata, give all clusters the same value.
        num_resamples: Number of resamples.
        generator: Source of the random draws.
        fewer: Number subtracted from the size of a stratum to get its number of draws (at least 1).
    """
    counts = np.zeros((num_resamples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        share = np.full(len(members), 1 / len(members))
        counts[:, members] = generator.multinomial(max(1, len(members) - fewer), share, size=num_resamples)
    return counts


def percentile_interval(
    estimate: float, resampled: Float[ndarray, "b s"], seeds: Int[ndarray, " b"], *, level: float = LEVEL
) -> Interval:
    """Return the percentile interval. Each resample scores one seed, so the interval covers the spread between seeds.

    Args:
        estimate: Value on all clusters, averaged over seeds.
        resampled: Value of each resample for each seed.
        seeds: Index of the seed that each resample scores.
        level: Share of the resamples inside the interval.
    """
    drawn = resampled[np.arange(len(resampled)), seeds]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, float(low), float(high))


def bca_interval(
    estimate: float, resampled: Float[ndarray, " b"], left_out: Float[ndarray, " g"]
) -> tuple[float, float]:
    """Return the bounds of the expanded BCa interval.

    Args:
        estimate: Value on all clusters.
        resampled: Value of each resample.
        left_out: Value without one cluster, for each cluster (jackknife).
    """
    from scipy.stats import norm, t

    slack = 1e-12 * max(1.0, abs(estimate))
    if np.ptp(resampled) <= slack:
        return estimate, estimate
    below = (resampled < estimate - slack).mean() + 0.5 * (np.abs(resampled - estimate) <= slack).mean()
    edge = 0.5 / len(resampled)
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    pull = left_out.mean() - left_out
    num, cubes = len(left_out), float((pull**3).sum())
    resampled = estimate + (resampled - estimate) * max(1.0, jackknife_error(left_out) / float(resampled.std()))
    acceleration = cubes / (6 * float((pull**2).sum()) ** 1.5) if cubes else 0.0
    reach = t.ppf((1 + LEVEL) / 2, num - 1) * math.sqrt(num / (num - 1))
    z = bias + np.array([-reach, reach])
    low, high = np.quantile(resampled, norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def jackknife_error(left_out: Float[ndarray, " g"]) -> float:
    """Return the jackknife's standard error from the values that leave out one cluster each."""
    num = len(left_out)
    return math.sqrt((num - 1) / num * float(np.square(left_out - left_out.mean()).sum()))
