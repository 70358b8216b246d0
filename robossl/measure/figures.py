"""Figures: measured values with bootstrap intervals over clusters of frames, such as episodes.

A metric consists of parts (a row of numbers for each frame) and a statistic (a function from the sums of the parts to
the value). The parts are computed once, so resampling clusters is one matrix product. A metric of retrieval looks for
each frame (the query) in a gallery, a fixed set of frames. The gallery is never resampled. Otherwise it could contain
the right frame twice. The copies would tie, and even a perfect encoder would miss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.measure.bootstrap import LEVEL, bca_interval, draw_counts, jackknife_error

UP_TO_ONE = (-math.inf, 1.0)  # limits of a score such as R2: 1 is perfect, and there is no worst value
MAX_UNDEFINED = 0.1  # largest allowed share of resamples without a value; if it is larger, there is no interval

# Function from sums over frames (the number of frames, then the sum of each part) to a value. Leading axes are batches.
Statistic = Callable[[Float[ndarray, "... k"]], Float[ndarray, " ..."]]


def mean(sums: Float[ndarray, "... 2"]) -> Float[ndarray, " ..."]:
    """Return the mean over frames, for a metric that averages one number per frame."""
    return np.asarray(sums[..., 1] / sums[..., 0])


def one_minus_ratio(sums: Float[ndarray, "... 3"]) -> Float[ndarray, " ..."]:
    """Return 1 - (sum of the first part) / (sum of the second part), for a metric with two numbers for each frame."""
    return np.asarray(1 - sums[..., 1] / sums[..., 2])


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its 95 % interval. If there is no value, `value`, `low` and `high` are None."""

    value: float | None
    low: float | None
    high: float | None
    n: int  # number of frames that were measured
    clusters: int  # number of independent units (such as episodes) that the measured frames come from
    reason: str | None = None  # why there is no value; None if there is a value


@dataclass(frozen=True, slots=True)
class MetricParts:
    """One metric on one view (transformed frames): the parts (numbers) of each frame, and a statistic of their sums."""

    parts: Float[ndarray, "n ..."]
    statistic: Statistic = mean
    limits: tuple[float, float] | None = None  # least and largest possible value, see `Draws.figure`


class Difference(NamedTuple):
    """The value of one encoder minus the value of another encoder on the same frames."""

    figure: Figure
    p: float  # two-sided p-value from the jackknife over clusters; nan if there is no interval


@dataclass(frozen=True, slots=True)
class Draws:
    """Bootstrap resamples of clusters (such as episodes), which all metrics and encoders share."""

    clusters: Int[ndarray, " n"]  # cluster of each frame, numbered from 0
    weights: Float[ndarray, "b g"]  # how often each resample draws each cluster

    def figure(
        self,
        parts: Float[ndarray, "n ..."],
        statistic: Statistic = mean,
        *,
        limits: tuple[float, float] | None = None,
    ) -> Figure:
        """Return a value with its 95 % interval; frames with a part that is nan or infinite are left out.

        Args:
            parts: The numbers of each frame that are summed over frames.
            statistic: Function from the sums to the value.
            limits: Least and largest possible value, such as 0 and 1 for a share of hits. The interval is cut off
                there, because it can be longer than the range of the resamples. If all frames have the value of one
                limit, the resamples have no spread. If both limits are finite, the other bound is then the exact
                binomial bound, as if each cluster (such as an episode) were one hit or miss.
        """
        table, known = self._table(parts)
        clusters = int((table[:, 0] > 0).sum())
        if not clusters:
            return missing("no frame has a value", n=0, clusters=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            estimate = float(statistic(table.sum(axis=0)))
        if not math.isfinite(estimate):
            return missing("the frames do not vary", n=int(known.sum()), clusters=clusters)
        low, high = self._bounds(table, statistic, estimate)
        if limits and low == high and estimate in limits and math.isfinite(limits[0]):
            slack = (limits[1] - limits[0]) * unseen_share(clusters)
            low, high = (estimate, estimate + slack) if estimate == limits[0] else (estimate - slack, estimate)
        if limits:
            low, high = min(estimate, max(low, limits[0])), max(estimate, min(high, limits[1]))
        if not math.isfinite(low) or not math.isfinite(high):
            return missing(f"{clusters} clusters give no interval", n=int(known.sum()), clusters=clusters)
        return Figure(estimate, low, high, n=int(known.sum()), clusters=clusters)

    def difference(
        self, parts: Float[ndarray, "n ..."], other: Float[ndarray, "n ..."], statistic: Statistic = mean
    ) -> Difference:
        """Return the value of `parts` minus the value of `other`, with the interval of the difference."""
        left, right = _columns(parts), _columns(other)
        middle = 1 + left.shape[1]

        def subtract(sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
            second = np.concatenate([sums[..., :1], sums[..., middle:]], axis=-1)
            return statistic(sums[..., :middle]) - statistic(second)

        both = np.concatenate([left, right], axis=1)
        figure = self.figure(both, subtract)
        return Difference(figure, self._p(both, subtract, figure))

    def _p(self, parts: Float[ndarray, "n k"], statistic: Statistic, figure: Figure) -> float:
        from scipy.stats import t

        if figure.value is None:
            return math.nan
        table = self._table(parts)[0]
        left_out = _left_out(table, statistic)
        error = jackknife_error(left_out)
        if error <= 1e-12 * max(1.0, abs(figure.value)):
            return 1.0 if abs(figure.value) <= 1e-12 else 0.0
        return float(2 * t.sf(abs(figure.value) / error, len(left_out) - 1))

    def _table(self, parts: Float[ndarray, "n ..."]) -> tuple[Float[ndarray, "g k"], Bool[ndarray, " n"]]:
        """Return a row for each cluster (its number of frames, then the sum of each part), and a mask.

        The mask tells which frames are included. A frame is left out if one of its parts is nan or infinite.
        """
        columns = _columns(parts)
        known = np.isfinite(columns).all(axis=1)
        columns = np.column_stack([np.ones(len(columns)), columns])[known]
        clusters, num = self.clusters[known], self.weights.shape[1]
        return np.column_stack([np.bincount(clusters, weights=column, minlength=num) for column in columns.T]), known

    def _bounds(self, table: Float[ndarray, "g k"], statistic: Statistic, estimate: float) -> tuple[float, float]:
        with np.errstate(divide="ignore", invalid="ignore"):
            resampled = statistic(self.weights @ table)
            left_out = _left_out(table, statistic)
        defined = np.isfinite(resampled)
        if len(left_out) < 2 or not np.isfinite(left_out).all() or (~defined).mean() > MAX_UNDEFINED:
            return math.nan, math.nan
        return bca_interval(estimate, resampled[defined], left_out)


def draw(clusters: Int[ndarray, " n"], *, num_resamples: int = 1000, seed: int = 0) -> Draws:
    """Draw clusters (such as episodes) with replacement; each resample has as many clusters as the data.

    Equal seeds and clusters give equal draws.
    """
    names, numbers = np.unique(clusters, return_inverse=True)
    one_stratum = np.zeros(len(names), np.int64)
    generator = np.random.default_rng(seed)
    return Draws(numbers, draw_counts(one_stratum, num_resamples=num_resamples, generator=generator))


def unseen_share(clusters: int) -> float:
    """Return the largest share of misses that is still compatible with seeing `clusters` clusters and no miss."""
    return float(1 - ((1 - LEVEL) / 2) ** (1 / clusters))


def clusters_to_show(hits: float) -> float:
    """Return how many clusters without a miss are needed to show that the share of hits is `hits` or more.

    The number is infinite for a share of 1.
    """
    if hits <= 0:
        return 1
    return math.inf if hits >= 1 else math.ceil(math.log((1 - LEVEL) / 2) / math.log(hits))


def missing(reason: str, *, n: int = 0, clusters: int = 0) -> Figure:
    """Return a `Figure` without a value; `reason` says why there is none."""
    return Figure(None, None, None, n=n, clusters=clusters, reason=reason)


def holm(p: Float[ndarray, " m"]) -> Float[ndarray, " m"]:
    """Adjust p-values for the number of tests (Holm, 1979). A nan stays nan and does not count as a test."""
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
    """Return one value for each cluster that has frames: the statistic without this cluster."""
    present = table[table[:, 0] > 0]
    return statistic(table.sum(axis=0) - present)
