"""Balanced accuracy of episodes, with intervals that cover the spread between episodes and between seeds.

Episodes are drawn within each class. A plain bootstrap of 68 episodes would lose a class of five episodes in 0.6 % of
its resamples, and balanced accuracy would then be undefined (stratified and clustered resampling: Davison & Hinkley,
"Bootstrap Methods and their Application", 1997, sections 3.2 and 3.8). The interval tells how the score may differ on
other episodes of the same classes, places and days. It does not cover new days or another training run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.bootstrap import LEVEL, Interval, draw_counts, percentile_interval


@dataclass(frozen=True, slots=True)
class EpisodeResamples:
    """Bootstrap draws of episodes, which all rows of a table share."""

    truth: Int[ndarray, " e"]  # class of each episode
    weights: Float[ndarray, "b e"]  # how often each resample draws each episode
    luck: Float[ndarray, " b"]  # number in [0, 1) of each resample; it selects the seed that the resample scores

    def interval(
        self, hits: Float[ndarray, "*s e"], sizes: Float[ndarray, " e"] | None = None, level: float = LEVEL
    ) -> Interval:
        """Return balanced accuracy with its percentile interval; bounds are nan if a class has a single episode.

        Args:
            hits: Share of correct predictions in each episode, in [0, 1]. With several seeds (of training or of random
                weights), `hits` has a row for each seed, and the estimate is the mean over seeds.
            sizes: Number of frames of each episode, for a score over frames. None: every episode counts once.
            level: Share of the resamples inside the interval.
        """
        hits = np.atleast_2d(hits)
        estimate = float(self._scores(hits, np.ones((1, len(self.truth))), sizes).mean())
        if min(map(len, _by_class(self.truth))) < 2:
            return Interval(estimate, math.nan, math.nan)
        seeds = (self.luck * len(hits)).astype(np.int64)
        return percentile_interval(estimate, self._scores(hits, self.weights, sizes), seeds, level=level)

    def paired(
        self,
        hits: Float[ndarray, "*s e"],
        reference: Float[ndarray, "*r e"],
        sizes: Float[ndarray, " e"] | None = None,
        level: float = LEVEL,
    ) -> Interval:
        """Return the score minus a reference encoder's (baseline's) score, with an interval from the same resamples.

        If both have several seeds, every pair of their seeds counts as one seed.
        """
        # Balanced accuracy is linear in the hits, so the score of differences is the difference of scores.
        return self.interval(all_pairs(hits, reference), sizes, level)

    def _scores(
        self, hits: Float[ndarray, "s e"], weights: Float[ndarray, "b e"], sizes: Float[ndarray, " e"] | None
    ) -> Float[ndarray, "b s"]:
        weights = weights if sizes is None else weights * sizes
        recalls = [weights[:, i] @ hits[:, i].T / weights[:, i].sum(axis=1)[:, None] for i in _by_class(self.truth)]
        scores: Float[ndarray, "b s"] = np.mean(recalls, axis=0)
        return scores


def all_pairs(values: Float[ndarray, "*s e"], reference: Float[ndarray, "*r e"]) -> Float[ndarray, "s_times_r e"]:
    """Return every row of `values` minus every row of `reference`."""
    pairs = np.atleast_2d(values)[:, None] - np.atleast_2d(reference)[None]
    flat: Float[ndarray, "s_times_r e"] = pairs.reshape(-1, pairs.shape[-1])
    return flat


def resample_episodes(truth: Int[ndarray, " e"], *, num_resamples: int, seed: int) -> EpisodeResamples:
    """Draw episodes with replacement within each class; the number of draws is the size of the class minus one.

    Args:
        truth: Class of each episode.
        num_resamples: Number of resamples. With 2,000, the Monte-Carlo error of a 95 % bound is near 2 % of the
            interval's width.
        seed: Seed of the random draws. Equal seeds and classes give equal draws.
    """
    generator = np.random.default_rng(seed)
    weights = draw_counts(truth, num_resamples=num_resamples, generator=generator, fewer=1)
    return EpisodeResamples(truth, weights, generator.random(num_resamples))


def _by_class(truth: Int[ndarray, " e"]) -> list[Int[ndarray, " k"]]:
    return [np.flatnonzero(truth == c) for c in np.unique(truth)]
