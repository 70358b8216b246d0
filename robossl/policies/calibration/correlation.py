"""Rank correlations of predictors with the success of policies, with bootstrap intervals over encoders."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import get_args

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.policies.calibration.predictors import PREDICTORS, PROXY, STRENGTH
from robossl.policies.calibration.result import Correlation, Estimate, JoinedCell, Target

RESAMPLES = 300
Statistic = Callable[[Float[ndarray, " n"], Float[ndarray, " n"]], float]


def spearman(predicted: Float[ndarray, " n"], truth: Float[ndarray, " n"]) -> float:
    """Return Spearman's rank correlation; nan if one side does not vary."""
    from scipy.stats import rankdata

    if len(truth) < 3 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return math.nan
    first, second = (each - each.mean() for each in (rankdata(predicted), rankdata(truth)))
    return float(first @ second / math.sqrt((first @ first) * (second @ second)))


def kendall(predicted: Float[ndarray, " n"], truth: Float[ndarray, " n"]) -> float:
    """Return Kendall's tau-b; nan if one side does not vary."""
    from scipy.stats import kendalltau

    if len(truth) < 3 or np.ptp(predicted) == 0 or np.ptp(truth) == 0:
        return math.nan
    return float(kendalltau(predicted, truth).statistic)


def mean_maximum_rank_violation(predicted: Float[ndarray, " n"], truth: Float[ndarray, " n"]) -> float:
    """Return the mean over cells of the largest difference in truth to a cell that the predictor ranks wrongly.

    MMRV of SIMPLER (arXiv:2405.05941): mean over i of max over j of |truth_i - truth_j| * [(predicted_i < predicted_j)
    != (truth_i < truth_j)]. In the unit of the truth; 0 is best.
    """
    wrong = (predicted[:, None] < predicted) != (truth[:, None] < truth)
    return float((np.abs(truth[:, None] - truth) * wrong).max(axis=1).mean())


def correlate(
    cells: Sequence[JoinedCell],
    *,
    predictors: Collection[str] = tuple(PREDICTORS),
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Correlation, ...]:
    """Return the correlations of each predictor with each target: over all cells, then within each factor."""
    factors = sorted({cell.factor for cell in cells})
    found = []
    for target in get_args(Target):
        for factor in (None, *factors):
            chosen = [c for c in cells if factor in (None, c.factor) and _truth(c, target) is not None]
            found += [_correlation(name, target, factor, chosen, resamples, seed) for name in predictors]
    return tuple(found)


def _truth(cell: JoinedCell, target: Target) -> float | None:
    return cell.share_kept if target == "share kept" else cell.shifted


def _correlation(
    name: str, target: Target, factor: str | None, cells: Sequence[JoinedCell], resamples: int, seed: int
) -> Correlation:
    columns = _columns(cells, target, name)
    whole = factor is None
    return Correlation(
        predictor=name,
        target=target,
        factor=factor,
        cells=len(columns[0]),
        encoders=len(set(columns[0].tolist())),
        spearman=_estimate(spearman, columns, resamples, seed),
        kendall=_estimate(kendall, columns, resamples, seed) if whole else None,
        mmrv=_estimate(mean_maximum_rank_violation, columns, resamples, seed) if whole else None,
        minus_proxy=_minus(cells, target, name, PROXY, resamples, seed) if whole and name != PROXY else None,
        minus_strength=_minus(cells, target, name, STRENGTH, resamples, seed) if whole and name != STRENGTH else None,
    )


def _minus(cells: Sequence[JoinedCell], target: Target, name: str, other: str, resamples: int, seed: int) -> Estimate:
    columns = _columns(cells, target, name, other)

    def difference(first: ndarray, truth: ndarray, second: ndarray) -> float:
        return spearman(first, truth) - spearman(second, truth)

    return _estimate(difference, columns, resamples, seed)


def _columns(cells: Sequence[JoinedCell], target: Target, name: str, *others: str) -> list[ndarray]:
    """Return the encoder, predictor, truth and other predictors of the cells that have all of them."""
    names = sorted({cell.encoder for cell in cells})
    rows = [
        (names.index(c.encoder), c.predictors[name], _truth(c, target), *(c.predictors[each] for each in others))
        for c in cells
    ]
    table = np.array([row for row in rows if None not in row], float).reshape(-1, 3 + len(others))
    return [table[:, 0].astype(int), *table[:, 1:].T]


def _estimate(statistic: Callable[..., float], columns: Sequence[ndarray], resamples: int, seed: int) -> Estimate:
    """Return a statistic with its percentile interval; each resample draws encoders with all their cells."""
    encoders: Int[ndarray, " n"] = columns[0]
    values = columns[1:]
    if not len(encoders):
        return Estimate(None, None, None)
    value = statistic(*values)
    groups = [np.flatnonzero(encoders == each) for each in np.unique(encoders)]
    if math.isnan(value):
        return Estimate(None, None, None)
    if len(groups) < 2:
        return Estimate(value, None, None)
    generator = np.random.default_rng(seed)
    drawn = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for _ in range(resamples):
            rows = np.concatenate([groups[at] for at in generator.integers(len(groups), size=len(groups))])
            drawn.append(statistic(*(column[rows] for column in values)))
    defined = np.array(drawn)[np.isfinite(drawn)]
    if len(defined) < 0.9 * resamples:
        return Estimate(value, None, None)
    low, high = np.quantile(defined, (0.025, 0.975))
    return Estimate(value, float(low), float(high))
