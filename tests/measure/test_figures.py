"""Intervals cover the truth as often as they say, with clusters as the independent unit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from robossl.measure.figures import UP_TO_ONE, clusters_to_show, draw, holm, mean, missing, one_minus_ratio
from robossl.measure.metrics import R2, BalancedAccuracy
from robossl.probes.invariance import distances

CLUSTERS = 60


def sizes_to_clusters(rng, num_clusters):
    return np.repeat(np.arange(num_clusters), rng.integers(4, 13, num_clusters))


def hits(rng, num_clusters):
    """A share of hits of 0.85 that differs by cluster."""
    of = sizes_to_clusters(rng, num_clusters)
    return of, (rng.random(len(of)) < rng.beta(8.5, 1.5, num_clusters)[of]).astype(float), mean, 0.85


def nis(rng, num_clusters):
    """An encoder whose view keeps 0.8 of the feature, adds noise that clusters share, and shifts the mean."""
    of, d = sizes_to_clusters(rng, num_clusters), 16
    shared, own = rng.normal(size=(num_clusters, d)), rng.normal(size=(len(of), d))
    z = math.sqrt(0.5) * shared[of] + math.sqrt(0.5) * own
    noise = 0.4 * rng.normal(size=(num_clusters, d))[of] + 0.4 * rng.normal(size=z.shape)
    moved = 0.8 * z + noise + 0.2
    return of, distances(z, moved, of), one_minus_ratio, 2 * 0.8 / (1 + 0.64 + 0.32 + 0.04)


def explained(rng, num_clusters):
    """Predictions with an error that clusters share; R2 0.6."""
    of = sizes_to_clusters(rng, num_clusters)
    target = rng.normal(size=(num_clusters, 1))[of] * math.sqrt(0.5) + rng.normal(size=(len(of), 1)) * math.sqrt(0.5)
    error = rng.normal(size=(num_clusters, 1))[of] * math.sqrt(0.2) + rng.normal(size=(len(of), 1)) * math.sqrt(0.2)
    score = R2(((0,),))
    return of, score.parts(target, target + error), score, 0.6


def balanced(rng, num_clusters):
    """Three classes, one a cluster, read right with 0.9, 0.8 and 0.7."""
    of = sizes_to_clusters(rng, num_clusters)
    truth = (np.arange(num_clusters) % 3)[of]
    right = rng.random(len(of)) < np.array([0.9, 0.8, 0.7])[truth]
    score = BalancedAccuracy(3)
    return of, score.parts(truth, np.where(right, truth, (truth + 1) % 3)), score, (0.8 - 1 / 3) / (2 / 3)


SIMULATIONS = {"hits": hits, "nis": nis, "r2": explained, "balanced accuracy": balanced}


def coverage(simulate, *, num_clusters, data_sets, seed=0):
    """Shares of intervals that hold the truth, that lie above it and below it."""
    rng, held, above, below = np.random.default_rng(seed), 0, 0, 0
    for i in range(data_sets):
        of, parts, statistic, truth = simulate(rng, num_clusters)
        figure = draw(of, seed=i).figure(parts, statistic)
        held += figure.low <= truth <= figure.high
        above += figure.low > truth
        below += figure.high < truth
    return held / data_sets, above / data_sets, below / data_sets


@pytest.mark.parametrize(
    "name", ["nis", *(pytest.param(name, marks=pytest.mark.slow) for name in ("hits", "r2", "balanced accuracy"))]
)
def test_95_percent_intervals_cover_the_truth_of_500_data_sets(name):
    held, above, below = coverage(SIMULATIONS[name], num_clusters=CLUSTERS, data_sets=500)
    assert 0.93 <= held <= 0.97
    assert max(above, below) <= 0.05  # misses on both sides


def test_the_width_falls_as_the_root_of_the_number_of_clusters_not_of_frames():
    rng = np.random.default_rng(0)

    def width(clusters, frames):
        of = np.repeat(np.arange(clusters), frames)
        score = rng.normal(size=clusters)[of]  # frames of a cluster say the same
        figure = draw(of).figure(score)
        return figure.high - figure.low

    assert width(400, 4) == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert width(400, 1) == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_equal_seeds_draw_equally_and_figures_count_what_they_stand_on():
    of = np.repeat(np.arange(30), 4)
    score = np.random.default_rng(1).random(120)
    assert draw(of, seed=3).figure(score) == draw(of, seed=3).figure(score)
    score[:8] = np.nan  # two whole clusters
    figure = draw(of).figure(score)
    assert (figure.n, figure.clusters) == (112, 28)
    assert figure.value == pytest.approx(np.nanmean(score))


def test_all_hits_leave_room_for_a_miss():
    of = np.repeat(np.arange(40), 5)
    figure = draw(of).figure(np.ones(200), limits=(0, 1))
    assert (figure.value, figure.high) == (1, 1)
    assert figure.low == pytest.approx(0.025 ** (1 / 40))  # the exact bound of 40 hits in 40
    none = draw(of).figure(np.zeros(200), limits=(0, 1))
    assert (none.value, none.low, none.high) == (0, 0, pytest.approx(1 - figure.low))


def test_an_interval_ends_where_the_quantity_does():
    of, score = np.arange(8), np.array([1, 1, 1, 1, 1, 1, 1, 0.0])
    free, kept = draw(of).figure(score), draw(of).figure(score, limits=(0, 1))
    assert free.high > 1 and (kept.value, kept.low, kept.high) == (free.value, free.low, 1)
    free, kept = draw(of).figure(1 - score), draw(of).figure(1 - score, limits=(0, 1))
    assert free.low < 0 and (kept.low, kept.high) == (0, free.high)
    assert draw(of).figure(np.array([1, 1, 1, 1, 1, 1, 1, -9.0]), limits=UP_TO_ONE).low < -1
    assert draw(of).figure(np.ones(8), limits=UP_TO_ONE).low == 1  # no worst value: no binomial bound


@pytest.mark.parametrize(
    ("of", "score", "reason"),
    [
        (np.zeros(5, int), np.arange(5.0), "1 clusters give no interval"),
        (np.arange(5), np.full(5, np.nan), "no frame has a value"),
    ],
)
def test_what_has_no_interval_has_a_reason(of, score, reason):
    figure = draw(of).figure(score)
    assert (figure.value, figure.low, figure.high, figure.reason) == (None, None, None, reason)


def test_a_ratio_without_variation_has_a_reason_instead_of_one():
    of = np.arange(30)
    assert draw(of).figure(np.zeros((30, 2)), one_minus_ratio).reason == "the frames do not vary"


def test_differences_are_paired():
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(60), 4)
    hard = rng.normal(size=60)[of]
    ours, theirs = hard + 0.1 + 0.05 * rng.normal(size=240), hard + 0.05 * rng.normal(size=240)
    found = draw(of).difference(ours, theirs)
    assert found.figure.low < 0.1 < found.figure.high
    assert found.figure.high - found.figure.low < 0.05  # each alone is uncertain by half a unit
    assert found.p < 1e-6
    assert draw(of).difference(ours, ours).p == 1


def test_p_values_are_uniform_where_there_is_no_difference():
    rng, of = np.random.default_rng(0), np.repeat(np.arange(40), 3)
    p = [draw(of, num_resamples=100).difference(*rng.normal(size=(2, 120))).p for _ in range(300)]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.03)


def test_holm_adjusts_by_hand():
    adjusted = holm(np.array([0.01, 0.04, np.nan, 0.03]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_missing_says_why():
    assert missing("because", n=3).reason == "because"


@pytest.mark.parametrize(("share", "clusters"), [(0.9, 36), (0.5, 6)])
def test_so_many_clusters_without_a_miss_show_a_share_of_hits(share: float, clusters: int) -> None:
    assert clusters_to_show(share) == clusters
    for num, is_shown in ((clusters, True), (clusters - 1, False)):
        low = draw(np.arange(num)).figure(np.ones(num), limits=(0, 1)).low
        assert low is not None and (low >= share) is is_shown
    assert (clusters_to_show(0.0), clusters_to_show(1.0)) == (1, math.inf)
