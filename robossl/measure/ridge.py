"""Ridge regression on principal components: one decomposition is used for every penalty, target and shuffled target.

Features are divided by their standard deviation, or by a minimum if that is larger (`LEAST_SPREAD`). There are two ways
to choose the penalty:
- `Basis.choose`, for probes, takes the penalty with the lowest squared error on clusters (such as episodes) that are
  left out in turn. The error is computed in closed form. If there are fewer than five frames per feature, `fit_basis`
  keeps only a quarter as many components as frames, because a fit with fewer frames than features is unstable with
  every penalty. A target of classes has one column per class.
- `predict_by_ridge`, for `regress`, takes the penalty with the best mean R2 over four folds of whole groups, and uses
  all components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.measure.metrics import least_deviation

# Minimum std that a feature is divided by, as a share of the root mean square std of all features.
# Without a minimum, features that hardly vary would be scaled up to the size of the others.
LEAST_SPREAD = 0.1
# Penalties that `Basis.choose` tries. Their unit is the mean of the squared singular values.
PENALTIES = tuple(10.0 ** np.arange(-3, 5))
# Penalties that `predict_by_ridge` tries. Unlike `PENALTIES`, they are not relative to the singular values.
FOLD_PENALTIES = tuple(float(penalty) for penalty in 10.0 ** np.arange(-1, 7))
FOLDS = 4  # number of folds in `predict_by_ridge`


@dataclass(frozen=True, slots=True)
class Basis:
    """Singular value decomposition of standardised training features: left @ diag(strength) @ axes.T.

    `root` holds the square root of each frame's weight. Each frame's row is multiplied by it before the decomposition.
    """

    mean: Float[ndarray, " d"]
    std: Float[ndarray, " d"]
    axes: Float[ndarray, "d k"]
    strength: Float[ndarray, " k"]
    left: Float[ndarray, "n k"]
    root: Float[ndarray, " n"]

    def components(self, features: Float[ndarray, "m d"]) -> Float[ndarray, "m k"]:
        """Return the principal components of features, each divided by its singular value."""
        components: Float[ndarray, "m k"] = (features - self.mean) / self.std @ (self.axes / self.strength)
        return components

    def shrink(self, penalty: float) -> Float[ndarray, " k"]:
        """Return for each component the factor in 0 to 1 by which a penalty shrinks it."""
        squared = np.square(self.strength)
        left: Float[ndarray, " k"] = squared / (squared + penalty * (squared.mean() if len(squared) else 1.0))
        return left

    def fit(self, target: Float[ndarray, "n t"], penalty: float) -> Readout:
        """Fit a ridge regression with this penalty to every column of `target`."""
        centre = np.square(self.root) @ target / len(target)
        pulled = self.left.T @ (self.root[:, None] * (target - centre))
        return Readout(self, self.shrink(penalty)[:, None] * pulled, centre)

    def choose(self, target: Float[ndarray, "n t"], clusters: Int[ndarray, " n"] | None = None) -> float:
        """Return the penalty with the lowest squared error on left-out clusters (or frames, if `clusters` is None)."""
        best: float = PENALTIES[int(np.argmin(self.left_out(target, clusters)))]
        return best

    def left_out(
        self, target: Float[ndarray, "n t"], clusters: Int[ndarray, " n"] | None = None
    ) -> Float[ndarray, " p"]:
        """Return for each penalty the squared error on left-out clusters or frames, with targets standardised."""
        scale = target.std(axis=0)
        target = target / np.where(scale > 0, scale, 1)
        rest = self.root[:, None] * (target - np.square(self.root) @ target / len(target))
        pulled = self.left.T @ rest
        shrink = np.stack([self.shrink(penalty) for penalty in PENALTIES])
        residual = np.stack([rest - self.left @ (each[:, None] * pulled) for each in shrink])
        own = np.square(self.root) / len(rest)  # leverage: how much each frame moves the mean
        if clusters is None:
            leverage = shrink @ np.square(self.left).T + own
            without = residual / np.maximum(1 - leverage, 1e-9)[..., None]
            return np.asarray(np.square(without).sum(axis=(1, 2)))
        errors = np.zeros(len(shrink))
        for rows in _groups(clusters):
            left, root = self.left[rows], self.root[rows] / np.sqrt(len(rest))
            influence = (left * shrink[:, None]) @ left.T + np.outer(root, root)
            without = np.linalg.solve((1 + 1e-9) * np.eye(len(rows)) - influence, residual[:, rows])
            errors += np.square(without).sum(axis=(1, 2))
        return errors


@dataclass(frozen=True, slots=True)
class Readout:
    """A fitted ridge regression."""

    basis: Basis
    weights: Float[ndarray, "k t"]
    centre: Float[ndarray, " t"]

    def __call__(self, features: Float[ndarray, "m d"]) -> Float[ndarray, "m t"]:
        """Predict the targets from features."""
        predicted: Float[ndarray, "m t"] = self.basis.components(features) @ self.weights + self.centre
        return predicted


def fit_basis(
    features: Float[ndarray, "n d"],
    weights: Float[ndarray, " n"] | None = None,
    *,
    rounding: Float[ndarray, " d"] | float = 0.0,
) -> Basis:
    """Standardise training features and decompose them into principal components.

    Args:
        features: Features of the training frames.
        weights: Weights of the frames, in any unit. None: equal weights.
        rounding: Rounding error of each feature. A feature counts as constant if its std is not larger than this or
            than the rounding error of its mean.
    """
    n, d = features.shape
    x = features.astype(np.float64)
    root = np.ones(n) if weights is None else np.sqrt(weights / weights.mean())
    share = np.square(root) / n
    mean = share @ x
    x = x - mean
    std = np.sqrt(share @ np.square(x))
    live = std > np.maximum(1e-7 * np.abs(mean), rounding)
    std = floor_spread(std, live)
    x = x / std * root[:, None]
    axes, strength, left = _decompose(x, keep=d if n >= 5 * d else max(1, n // 4))
    return Basis(mean, std, axes, strength, left, root)


def floor_spread(std: Float[ndarray, " d"], live: Bool[ndarray, " d"]) -> Float[ndarray, " d"]:
    """Return the std to divide each feature by: at least `LEAST_SPREAD` times the root mean square std.

    Constant features are those that are not `live`. Their std is set to infinity, so that they become 0.
    """
    least = LEAST_SPREAD * np.sqrt(np.square(std[live]).mean()) if live.any() else 0.0
    return np.where(live, np.maximum(std, least), np.inf)


def predict_by_ridge(
    train: Float[ndarray, "n d"], target: Float[ndarray, "n k"], groups: Int[ndarray, " n"], test: Float[ndarray, "m d"]
) -> tuple[Float[ndarray, "m k"], float]:
    """Return predictions for `test` and the penalty that was used.

    The penalty is the one with the best R2, averaged over folds of whole groups and over the columns of `target`.
    """
    from sklearn.model_selection import GroupKFold

    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0)
    std = floor_spread(std, is_live(mean, std))
    train, test = (train - mean) / std, (test - mean) / std
    scale = target.std(axis=0)
    scaled = target / scale
    scores = np.zeros(len(FOLD_PENALTIES))
    for seen, held in GroupKFold(FOLDS).split(train, target, groups):
        predicted = _predict(train[seen], scaled[seen], train[held], FOLD_PENALTIES)
        error = np.square(scaled[held] - predicted).mean(axis=1)
        scores -= (error / least_deviation(scaled[held].var(axis=0), np.ones(error.shape))).mean(axis=1)
    penalty = FOLD_PENALTIES[int(scores.argmax())]
    return _predict(train, scaled, test, (penalty,))[0] * scale, penalty


def _predict(
    train: Float[ndarray, "n d"], target: Float[ndarray, "n k"], test: Float[ndarray, "m d"], penalties: Sequence[float]
) -> Float[ndarray, "p m k"]:
    """Return predictions for each penalty. A penalty is added to the squared singular values without rescaling."""
    n, d = train.shape
    centre = train.mean(axis=0)
    axes, strength, left = _decompose(train - centre, keep=d)
    basis = Basis(centre, np.ones(d), axes, strength, left, np.ones(n))
    unit = np.square(strength).mean() if len(strength) else 1.0
    components, fits = basis.components(test), [basis.fit(target, penalty / unit) for penalty in penalties]
    return np.stack([components @ fit.weights + fit.centre for fit in fits])


def is_live(mean: Float[ndarray, " d"], std: Float[ndarray, " d"]) -> Bool[ndarray, " d"]:
    """Return a mask of the features that vary by more than the rounding error of their mean."""
    live: Bool[ndarray, " d"] = std > 1e-6 * np.abs(mean) + 1e-12
    return live


def _decompose(x: Float[ndarray, "n d"], *, keep: int) -> tuple[Any, Any, Any]:
    """Return the `keep` leading right singular vectors, singular values and left singular vectors of x.

    If x has a lower rank, return fewer of them. The decomposition is computed from the smaller of the Gram matrices
    x.T @ x and x @ x.T.
    """
    tall = x.shape[0] >= x.shape[1]
    values, vectors = np.linalg.eigh(x.T @ x if tall else x @ x.T)
    order = np.argsort(values)[::-1][:keep]
    order = order[values[order] > 1e-12 * max(float(values.max()), np.finfo(float).tiny)]
    strength, vectors = np.sqrt(values[order]), vectors[:, order]
    if tall:
        return vectors, strength, x @ vectors / strength
    return x.T @ vectors / strength, strength, vectors


def _groups(clusters: Int[ndarray, " n"]) -> list[Any]:
    order = np.argsort(clusters, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(clusters[order])) + 1)
