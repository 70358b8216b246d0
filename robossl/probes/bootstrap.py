"""Intervals of probe scores when clusters (episodes, scenes), not frames, are the independent unit.

A metric hands over one row of parts a frame, computed once against a fixed gallery, and a statistic of the sums of
those parts. Resampling clusters is then one matrix product. Frames themselves are never resampled: a duplicate of the
query in its gallery ties, and a perfect encoder would miss.

The interval is BCa (Efron, "Better bootstrap confidence intervals", JASA 1987), which is too short at 20 to 60 clusters
as it stands: it takes the quantiles of Student's t and the sqrt(g / (g - 1)) of Hesterberg's expanded percentile ("What
teachers should know about the bootstrap", 2015), and is no shorter than the jackknife's standard error makes it. All
metrics and encoders share one set of draws, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.probes.result import Figure

LEVEL = 0.95
MAX_UNDEFINED = 0.1  # share of resamples without a value above which there is no interval

# From sums over frames (the number of frames first, then the parts) to a value; over all leading axes at once.
Statistic = Callable[[Float[ndarray, "... k"]], Float[ndarray, " ..."]]


def mean(sums: Float[ndarray, "... 2"]) -> Float[ndarray, " ..."]:
    """Of one part."""
    return np.asarray(sums[..., 1] / sums[..., 0])


def one_minus_ratio(sums: Float[ndarray, "... 3"]) -> Float[ndarray, " ..."]:
    """One minus the first part over the second."""
    return np.asarray(1 - sums[..., 1] / sums[..., 2])


@dataclass(frozen=True, slots=True)
class Scores:
    """One metric of one view: a row of parts a frame, and what makes a figure of their sums."""

    parts: Float[ndarray, "n ..."]
    statistic: Statistic = mean
    limits: tuple[float, float] | None = None


class Difference(NamedTuple):
    """How far one encoder is above another on the same frames."""

    figure: Figure
    p: float  # two-sided, from the jackknife over clusters; nan where there is no interval


@dataclass(frozen=True, slots=True)
class Draws:
    """`weights[b, g]` is how often resample b drew cluster g; `of` is the cluster of each frame."""

    of: Int[ndarray, " n"]
    weights: Float[ndarray, "b g"]

    def figure(
        self,
        parts: Float[ndarray, "n ..."],
        statistic: Statistic = mean,
        *,
        limits: tuple[float, float] | None = None,
    ) -> Figure:
        """A value with its 95 % interval; frames with a part that is nan are left out.

        Args:
            parts: What is summed; one row a frame.
            statistic: From the sums to the value.
            limits: Of a mean that cannot leave them, like a share of hits. Frames that all sit on a limit have no
                spread to resample: the other bound is then that of as many clusters, each a hit or a miss.
        """
        table, known = self._table(parts)
        clusters = int((table[:, 0] > 0).sum())
        if not clusters:
            return missing("no frame has a value", n=0, clusters=0)
        with np.errstate(divide="ignore", invalid="ignore"):  # what has no value is told by its reason
            estimate = float(statistic(table.sum(axis=0)))
        if not math.isfinite(estimate):
            return missing("the frames do not vary", n=int(known.sum()), clusters=clusters)
        low, high = self._bounds(table, statistic, estimate)
        if limits and low == high and estimate in limits:
            slack = (limits[1] - limits[0]) * unseen_share(clusters)
            low, high = (estimate, estimate + slack) if estimate == limits[0] else (estimate - slack, estimate)
        if not math.isfinite(low) or not math.isfinite(high):
            return missing(f"{clusters} clusters give no interval", n=int(known.sum()), clusters=clusters)
        return Figure(estimate, low, high, n=int(known.sum()), clusters=clusters)

    def difference(
        self, parts: Float[ndarray, "n ..."], other: Float[ndarray, "n ..."], statistic: Statistic = mean
    ) -> Difference:
        """The first less the second on the same draws."""
        left, right = _columns(parts), _columns(other)
        middle = 1 + left.shape[1]

        def apart(sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
            second = np.concatenate([sums[..., :1], sums[..., middle:]], axis=-1)
            return statistic(sums[..., :middle]) - statistic(second)

        both = np.concatenate([left, right], axis=1)
        figure = self.figure(both, apart)
        return Difference(figure, self._p(both, apart, figure))

    def _p(self, parts: Float[ndarray, "n k"], statistic: Statistic, figure: Figure) -> float:
        from scipy.stats import t

        if figure.value is None:
            return math.nan
        table = self._table(parts)[0]
        left_out = _left_out(table, statistic)
        num = len(left_out)
        error = math.sqrt((num - 1) / num * float(np.square(left_out - left_out.mean()).sum()))
        if error <= 1e-12 * max(1.0, abs(figure.value)):
            return 1.0 if abs(figure.value) <= 1e-12 else 0.0
        return float(2 * t.sf(abs(figure.value) / error, num - 1))

    def _table(self, parts: Float[ndarray, "n ..."]) -> tuple[Float[ndarray, "g k"], Bool[ndarray, " n"]]:
        """Sums by cluster, the number of frames first."""
        columns = _columns(parts)
        known = np.isfinite(columns).all(axis=1)
        columns = np.column_stack([np.ones(len(columns)), columns])[known]
        of, num = self.of[known], self.weights.shape[1]
        return np.column_stack([np.bincount(of, weights=column, minlength=num) for column in columns.T]), known

    def _bounds(self, table: Float[ndarray, "g k"], statistic: Statistic, estimate: float) -> tuple[float, float]:
        with np.errstate(divide="ignore", invalid="ignore"):  # a resample without a value is counted below
            resampled = statistic(self.weights @ table)
            left_out = _left_out(table, statistic)
        defined = np.isfinite(resampled)
        if len(left_out) < 2 or not np.isfinite(left_out).all() or (~defined).mean() > MAX_UNDEFINED:
            return math.nan, math.nan
        return _bca(estimate, resampled[defined], left_out)


def draw(clusters: Int[ndarray, " n"], *, num_resamples: int = 1000, seed: int = 0) -> Draws:
    """Draw as many clusters as there are, with replacement; equal seeds and clusters give equal draws."""
    names, of = np.unique(clusters, return_inverse=True)
    share = np.full(len(names), 1 / len(names))
    weights = np.random.default_rng(seed).multinomial(len(names), share, size=num_resamples)
    return Draws(of, weights.astype(np.float64))


def unseen_share(clusters: int) -> float:
    """The largest share of misses that so many clusters without one allow."""
    return float(1 - ((1 - LEVEL) / 2) ** (1 / clusters))


def clusters_to_show(hits: float) -> float:
    """How many clusters without a miss it takes to show this share of hits; infinite for all of them."""
    if hits <= 0:
        return 1
    return math.inf if hits >= 1 else math.ceil(math.log((1 - LEVEL) / 2) / math.log(hits))


def missing(reason: str, *, n: int = 0, clusters: int = 0) -> Figure:
    """A figure that is not there, and why."""
    return Figure(None, None, None, n=n, clusters=clusters, reason=reason)


def holm(p: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    """Adjust p-values for as many claims as there are (Holm, 1979); nan stays nan and counts as no claim."""
    adjusted = np.full(len(p), np.nan)
    order = [int(i) for i in np.argsort(p) if np.isfinite(p[i])]
    largest = 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * float(p[i])))
        adjusted[i] = largest
    return adjusted


def _columns(parts: Float[ndarray, "n ..."]) -> Float[ndarray, "n k"]:
    return np.asarray(parts, dtype=np.float64).reshape(len(parts), -1)


def _left_out(table: Float[ndarray, "g k"], statistic: Statistic) -> Float[ndarray, " g"]:
    """The statistic without each cluster that has frames."""
    present = table[table[:, 0] > 0]
    return statistic(table.sum(axis=0) - present)


def _bca(estimate: float, resampled: Float[ndarray, " b"], left_out: Float[ndarray, " g"]) -> tuple[float, float]:
    from scipy.stats import norm, t

    slack = 1e-12 * max(1.0, abs(estimate))
    if np.ptp(resampled) <= slack:
        return estimate, estimate
    below = (resampled < estimate - slack).mean() + 0.5 * (np.abs(resampled - estimate) <= slack).mean()
    edge = 0.5 / len(resampled)
    bias = norm.ppf(np.clip(below, edge, 1 - edge))
    pull = left_out.mean() - left_out
    num, cubes = len(left_out), float((pull**3).sum())
    error = math.sqrt((num - 1) / num * float((pull**2).sum()))
    resampled = estimate + (resampled - estimate) * max(1.0, error / float(resampled.std()))
    acceleration = cubes / (6 * float((pull**2).sum()) ** 1.5) if cubes else 0.0
    reach = t.ppf((1 + LEVEL) / 2, num - 1) * math.sqrt(num / (num - 1))
    z = bias + np.array([-reach, reach])
    low, high = np.quantile(resampled, norm.cdf(bias + z / (1 - acceleration * z)))
    return float(low), float(high)
