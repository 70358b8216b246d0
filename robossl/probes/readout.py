"""Linear read-outs: ridge regression on principal components, and the scores of what was read.

One decomposition serves every penalty, every target and every shuffle of a target. The penalty is the one with the
least error on frames whose cluster was left out, in closed form. Fewer than five frames a feature: only n / 4
components are kept, since a fit with n < d is unstable whatever its penalty. Classes are read as one column each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

LEAST_SPREAD = 0.1  # of the features' root mean square std: what hardly varies is not blown up to a feature like any
PENALTIES = tuple(10.0 ** np.arange(-3, 5))  # over the mean squared singular value


@dataclass(frozen=True, slots=True)
class Basis:
    """Training features in units of their spread as left @ diag(strength) @ axes.T, rows weighted by `root` squared."""

    mean: Float[ndarray, " d"]
    std: Float[ndarray, " d"]
    axes: Float[ndarray, "d k"]
    strength: Float[ndarray, " k"]
    left: Float[ndarray, "n k"]
    root: Float[ndarray, " n"]

    def components(self, features: Float[ndarray, "m d"]) -> Float[ndarray, "m k"]:
        """Principal components of any features, in units of the training ones' singular values."""
        found: Float[ndarray, "m k"] = (features - self.mean) / self.std @ (self.axes / self.strength)
        return found

    def shrink(self, penalty: float) -> Float[ndarray, " k"]:
        """How much of each component a penalty leaves."""
        squared = np.square(self.strength)
        left: Float[ndarray, " k"] = squared / (squared + penalty * (squared.mean() if len(squared) else 1.0))
        return left

    def fit(self, target: Float[ndarray, "n t"], penalty: float) -> Readout:
        """Ridge regression of any number of targets."""
        centre = np.square(self.root) @ target / len(target)
        pulled = self.left.T @ (self.root[:, None] * (target - centre))
        return Readout(self, self.shrink(penalty)[:, None] * pulled, centre)

    def choose(self, target: Float[ndarray, "n t"], clusters: Int[ndarray, " n"] | None = None) -> float:
        """The penalty with the least squared error when the frame, or its cluster, is left out."""
        best: float = PENALTIES[int(np.argmin(self.left_out(target, clusters)))]
        return best

    def left_out(
        self, target: Float[ndarray, "n t"], clusters: Int[ndarray, " n"] | None = None
    ) -> Float[ndarray, " p"]:
        """Squared errors of standardised targets for each penalty, each cluster predicted without its frames."""
        scale = target.std(axis=0)
        target = target / np.where(scale > 0, scale, 1)
        rest = self.root[:, None] * (target - np.square(self.root) @ target / len(target))
        pulled = self.left.T @ rest
        shrink = np.stack([self.shrink(penalty) for penalty in PENALTIES])
        residual = np.stack([rest - self.left @ (each[:, None] * pulled) for each in shrink])
        own = np.square(self.root) / len(rest)  # the pull of a frame on the mean
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
        """Predictions."""
        predicted: Float[ndarray, "m t"] = self.basis.components(features) @ self.weights + self.centre
        return predicted


def fit_basis(
    features: Float[ndarray, "n d"],
    weights: Float[ndarray, " n"] | None = None,
    *,
    rounding: Float[ndarray, " d"] | float = 0.0,
) -> Basis:
    """Decompose training features, each in units of its std, or of the least spread where it varies less.

    Args:
        features: Of the frames that are fitted.
        weights: Of the frames, in any unit.
        rounding: A feature that varies by no more than this, or than rounding of its mean, counts as constant.
    """
    n, d = features.shape
    x = features.astype(np.float64)
    root = np.ones(n) if weights is None else np.sqrt(weights / weights.mean())
    share = np.square(root) / n
    mean = share @ x
    x = x - mean
    std = np.sqrt(share @ np.square(x))
    live = std > np.maximum(1e-7 * np.abs(mean), rounding)
    least = LEAST_SPREAD * np.sqrt(np.square(std[live]).mean()) if live.any() else 0.0
    std = np.where(live, np.maximum(std, least), np.inf)
    x = x / std * root[:, None]
    axes, strength, left = _decompose(x, keep=d if n >= 5 * d else max(1, n // 4))
    return Basis(mean, std, axes, strength, left, root)


def _decompose(x: Float[ndarray, "n d"], *, keep: int) -> tuple[Any, Any, Any]:
    """The leading singular vectors and values, by the smaller Gram matrix."""
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


def one_hot(classes: Int[ndarray, " n"], num_classes: int) -> Float[ndarray, "n c"]:
    """A column a class."""
    return np.asarray(np.eye(num_classes)[classes])


def balance(classes: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Weights with which every class counts the same."""
    counts = np.bincount(classes)
    return np.asarray(1.0 / counts[classes])


@dataclass(frozen=True, slots=True)
class R2:
    """Mean over groups of columns with one unit of the share of their variance that is explained; a statistic."""

    groups: tuple[tuple[int, ...], ...]

    def parts(self, target: Float[ndarray, "n t"], predicted: Float[ndarray, "n t"]) -> Float[ndarray, "n 3*t"]:
        """What `__call__` takes the sums of. Give targets near zero: their squares are summed."""
        return np.concatenate([target, np.square(target), np.square(target - predicted)], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """From the number of frames and the sums of the parts."""
        num = sums[..., :1]
        first, second, error = np.split(sums[..., 1:], 3, axis=-1)
        deviation = np.maximum(second - np.square(first) / num, 0)
        scores = [1 - error[..., list(g)].sum(axis=-1) / deviation[..., list(g)].sum(axis=-1) for g in self.groups]
        value: Float[ndarray, " ..."] = np.mean(scores, axis=0)
        return value


@dataclass(frozen=True, slots=True)
class BalancedAccuracy:
    """Mean share read right over the classes there are; 0 is one answer for all, 1 all right; a statistic."""

    num_classes: int

    def parts(self, target: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> Float[ndarray, "n 2*c"]:
        """How often each class was there, and how often it was read."""
        there = one_hot(target, self.num_classes)
        return np.concatenate([there, there * (predicted == target)[:, None]], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """From the number of frames and the sums of the parts; classes without frames do not count."""
        there, hits = np.split(sums[..., 1:], 2, axis=-1)
        num = (there > 0).sum(axis=-1)
        recall = np.where(there > 0, hits / np.where(there > 0, there, 1), 0).sum(axis=-1) / num
        value: Float[ndarray, " ..."] = above_chance(recall, num)
        return value


def above_chance(accuracy: Any, num_classes: Any) -> Any:
    """0 at chance, 1 when all is right."""
    chance = 1 / num_classes
    return (accuracy - chance) / (1 - chance)
