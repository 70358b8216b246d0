from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from robossl.measure.accuracy import resample_episodes
from robossl.measure.bootstrap import Interval
from robossl.measure.metrics import balanced_accuracy


def test_balanced_accuracy_is_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 4, 200), generator.integers(0, 4, 200)
    expected = balanced_accuracy_score(truth, predicted)
    assert balanced_accuracy(truth, predicted) == pytest.approx(expected, abs=1e-12)


def test_majority_scores_one_over_the_classes() -> None:
    truth = np.array([0] * 76 + [1] * 13 + [2] * 9)
    assert balanced_accuracy(truth, np.zeros_like(truth)) == pytest.approx(1 / 3)


def test_no_class_vanishes_and_a_class_draws_one_fewer() -> None:
    truth = np.array([0] * 5 + [1] * 2 + [2] * 40)
    weights = resample_episodes(truth, num_resamples=500, seed=3).weights
    for c, expected in ((0, 4), (1, 1), (2, 39)):
        assert (weights[:, truth == c].sum(axis=1) == expected).all()


def test_the_variance_is_that_of_independent_episodes() -> None:
    truth = np.repeat([0, 1], [5, 8])
    hits = np.random.default_rng(1).random(13)
    resamples = resample_episodes(truth, num_resamples=40_000, seed=0)
    expected = sum(hits[truth == c].var(ddof=1) / (truth == c).sum() for c in (0, 1)) / 4
    assert resamples._scores(hits[None], resamples.weights, None).var() == pytest.approx(expected, rel=0.05)


def test_equal_seeds_give_equal_intervals_and_others_do_not() -> None:
    truth, hits = np.repeat([0, 1], 20), np.random.default_rng(0).random(40)
    intervals = [resample_episodes(truth, num_resamples=200, seed=s).interval(hits) for s in (0, 0, 1)]
    assert intervals[0] == intervals[1] != intervals[2]


def test_frames_weigh_by_the_size_of_their_episode() -> None:
    truth, hits, sizes = (
        np.array([0, 0, 1, 1]),
        np.array([1.0, 0.0, 1.0, 1.0]),
        np.array([3.0, 1.0, 5.0, 5.0]),
    )
    resamples = resample_episodes(truth, num_resamples=100, seed=0)
    assert resamples.interval(hits, sizes).estimate == pytest.approx((3 / 4 + 1) / 2)
    assert resamples.interval(hits).estimate == pytest.approx((1 / 2 + 1) / 2)


def test_pairing_removes_what_is_common() -> None:
    generator = np.random.default_rng(2)
    truth = np.repeat([0, 1, 2], 12)
    hard = generator.random(36)
    better, worse = (hard > 0.4).astype(float), (hard > 0.5).astype(float)
    resamples = resample_episodes(truth, num_resamples=1000, seed=0)
    paired = resamples.paired(better, worse)
    alone = resamples.interval(better)
    assert paired.estimate == pytest.approx(alone.estimate - resamples.interval(worse).estimate)
    assert paired.high - paired.low < alone.high - alone.low
    assert resamples.paired(better, better) == Interval(0.0, 0.0, 0.0)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 worlds, 3 classes of 6, 10 and 30 episodes: the 95 % interval of a difference covers in 91-99 %."""
    generator = np.random.default_rng(5)
    truth = np.repeat([0, 1, 2], [6, 10, 30])
    expected, covered = 0.2, 0
    for world in range(400):
        first, second = generator.random(46) < 0.7, generator.random(46) < 0.5
        interval = resample_episodes(truth, num_resamples=300, seed=world).paired(
            first.astype(float), second.astype(float)
        )
        covered += interval.low <= expected <= interval.high
    assert 0.91 <= covered / 400 <= 0.99


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False), (0.0, 0.1, False)],
)
def test_excludes_zero(low: float, high: float, excludes: bool) -> None:
    assert Interval((low + high) / 2, low, high).excludes_zero is excludes


def test_a_class_of_one_episode_leaves_no_interval() -> None:
    interval = resample_episodes(np.array([0, 0, 1]), num_resamples=10, seed=0).interval(np.array([1.0, 0.0, 1.0]))
    assert interval.estimate == 0.75
    assert not interval.is_defined
    assert not interval.excludes_zero


def test_the_luck_of_a_seed_is_in_the_interval() -> None:
    """Three nets, all sure of themselves, that differ: no episode decides which of them a new one would be."""
    truth = np.repeat([0, 1], 10)
    seeds = np.array([[0.2], [0.5], [0.8]]) * np.ones(20)
    resamples = resample_episodes(truth, num_resamples=500, seed=0)
    assert resamples.interval(seeds) == pytest.approx(Interval(0.5, 0.2, 0.8))
    assert resamples.paired(seeds[1], seeds) == pytest.approx(Interval(0.0, -0.3, 0.3))
    assert resamples.interval(seeds.mean(axis=0)) == pytest.approx(Interval(0.5, 0.5, 0.5))
