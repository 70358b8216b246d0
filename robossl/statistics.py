"""Balanced accuracy and its interval when episodes, not frames, are the independent unit.

The interval is a percentile bootstrap over episodes, drawn within each class: a plain bootstrap of 68
episodes loses a class of five in 0.6 % of its resamples, and then there is no balanced accuracy. Of a class
of n episodes, n - 1 are drawn: drawing n gives a variance too small by (n - 1) / n, a fifth at n = 5 (Rao &
Wu, "Resampling inference with complex survey data", JASA 1988; stratified and clustered resampling: Davison
& Hinkley, "Bootstrap Methods and their Application", 1997, sections 3.2 and 3.8). Two rows of a table are
compared on the same draws, so what makes an episode hard for both cancels. The interval speaks of more
episodes of these classes, places and days; not of new days, and not of another training run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray


class Interval(NamedTuple):
    """An estimate with its interval, in the unit of the estimate; bounds are nan where there is no interval."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where there is none."""
        return self.low > 0 or self.high < 0

    @property
    def is_defined(self) -> bool:
        """Whether there is an interval."""
        return not math.isnan(self.low)


def balanced_accuracy(truth: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> float:
    """Mean over the classes in `truth` of the share predicted right (recall); 1 / classes is chance."""
    return _mean_recall(truth, predicted == truth)


def _mean_recall(truth: Int[ndarray, " n"], hits: Float[ndarray, " n"] | Bool[ndarray, " n"]) -> float:
    return float(np.mean([hits[truth == c].mean() for c in np.unique(truth)]))


@dataclass(frozen=True, slots=True)
class Resamples:
    """The draws that all rows of one table share: `weights[b, i]` is how often resample b drew episode i."""

    truth: Int[ndarray, " e"]
    weights: Float[ndarray, "b e"]
    luck: Float[ndarray, " b"]  # in [0, 1): which seed a resample scores

    def interval(
        self, hits: Float[ndarray, "*s e"], sizes: Float[ndarray, " e"] | None = None, level: float = 0.95
    ) -> Interval:
        """Balanced accuracy with its percentile interval.

        Args:
            hits: How much of each episode is right, in [0, 1]; a row a seed where several nets stand for one thing.
                The estimate is then their mean, and each resample scores one of them, so that the luck of a seed is
                in the interval.
            sizes: Number of frames of each episode, for a score over frames; None: every episode counts once.
            level: Share of the resamples inside the interval.
        """
        hits = np.atleast_2d(hits)
        estimate = float(self._scores(hits, np.ones((1, len(self.truth))), sizes).mean())
        if min(map(len, _by_class(self.truth))) < 2:
            return Interval(estimate, math.nan, math.nan)
        of_seed = self._scores(hits, self.weights, sizes)
        drawn = of_seed[np.arange(len(of_seed)), (self.luck * len(hits)).astype(np.int64)]
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Interval(estimate, float(low), float(high))

    def paired(
        self,
        hits: Float[ndarray, "*s e"],
        reference: Float[ndarray, "*r e"],
        sizes: Float[ndarray, " e"] | None = None,
        level: float = 0.95,
    ) -> Interval:
        """The difference `hits - reference` in balanced accuracy, both scored on the same resamples.

        Where both have several seeds, every pair of them is one.
        """
        return self.interval(all_pairs(hits, reference), sizes, level)  # balanced accuracy is linear in the hits

    def _scores(
        self, hits: Float[ndarray, "s e"], weights: Float[ndarray, "b e"], sizes: Float[ndarray, " e"] | None
    ) -> Float[ndarray, "b s"]:
        weights = weights if sizes is None else weights * sizes
        recalls = [weights[:, i] @ hits[:, i].T / weights[:, i].sum(axis=1)[:, None] for i in _by_class(self.truth)]
        scores: Float[ndarray, "b s"] = np.mean(recalls, axis=0)
        return scores


def all_pairs(values: Float[ndarray, "*s e"], reference: Float[ndarray, "*r e"]) -> Float[ndarray, "s_times_r e"]:
    """The difference of every row to every row of the reference."""
    pairs = np.atleast_2d(values)[:, None] - np.atleast_2d(reference)[None]
    flat: Float[ndarray, "s_times_r e"] = pairs.reshape(-1, pairs.shape[-1])
    return flat


def resample_episodes(truth: Int[ndarray, " e"], *, num_resamples: int, seed: int) -> Resamples:
    """Draw episodes with replacement within each class, one fewer than the class has.

    A class of one episode says nothing of how episodes of it differ: every interval is then undefined.

    Args:
        truth: Class of each episode.
        num_resamples: 2,000 keeps the Monte-Carlo error of a 95 % bound near 2 % of the interval's width.
        seed: Seed of the draws; equal seeds and truth give equal draws.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((num_resamples, len(truth)), dtype=np.float32)  # counts, exact
    for rows in _by_class(truth):
        share = np.full(len(rows), 1 / len(rows))
        weights[:, rows] = generator.multinomial(max(1, len(rows) - 1), share, size=num_resamples)
    return Resamples(truth, weights, generator.random(num_resamples))


def _by_class(truth: Int[ndarray, " e"]) -> list[Int[ndarray, " k"]]:
    return [np.flatnonzero(truth == c) for c in np.unique(truth)]
