"""Measure how far a view (transformed frame) moves features, relative to the distance between different frames.

NIS = 1 - E|z_i - z'_i|^2 / E|z_i - z'_j|^2 for features z of clean frames and z' of views. NIS is 1 if features do not
move, and 0 if they move as far as to another frame. Frames i and j are never of the same cluster (such as an episode).
Otherwise the share of same-episode pairs, and so NIS, would depend on the number of episodes. The main metric is
`nis_w`, the NIS of whitened features. Without whitening, the leading components would dominate, and these mostly hold
the mean colour. The other metrics are `nis`, `eric` (cosine of whitened features) and `auc`. To compute `auc`,
each clean frame is compared with its own view and with the views of other clusters. `auc` is the share of those other
views that are less similar than the own view. Mean and covariance (Ledoit-Wolf) are fitted on reference frames, which
share no cluster with the evaluated frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import UP_TO_ONE, Draws, Figure, MetricParts, missing, one_minus_ratio

METRICS = ("nis", "nis_w", "eric", "auc")
# If the spread of features is at most this share of the length of their mean, they differ only by rounding.
CONSTANT = 1e-6
# Cosines that differ by at most this count as equal. This limit is larger than the rounding error of a cosine.
TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Space:
    """Mean and whitening of the features of the reference frames."""

    mean: Float[ndarray, " d"]
    whitener: Float[ndarray, "d d"]
    spread: float  # mean squared distance of the features from their mean
    shrinkage: float
    reason: str | None = None  # why no metric can be computed from these features; None if metrics can be computed

    def centre(self, features: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
        """Return the features minus the mean, in float64."""
        return np.asarray(features.astype(np.float64) - self.mean)

    def whiten(self, features: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
        """Return centred features, scaled and rotated to unit covariance."""
        return np.asarray(self.centre(features) @ self.whitener)


def fit_space(reference: Float[ndarray, "r d"]) -> Space:
    """Fit mean and whitening to the features of the reference frames; set `reason` if that is not possible."""
    from sklearn.covariance import ledoit_wolf

    x = reference.astype(np.float64)
    d = x.shape[1]
    if len(x) < 2 or not np.isfinite(x).all():
        reason = "fewer than two reference frames" if len(x) < 2 else "the features are not finite"
        return Space(np.zeros(d), np.eye(d), 0.0, 1.0, reason)
    centre = x.mean(axis=0)
    x = x - centre
    spread = float(np.square(x).sum() / len(x))
    if spread <= CONSTANT**2 * float(centre @ centre):
        return Space(centre, np.eye(d), spread, 1.0, "the features are the same for every frame")
    # Scale the features, so that shrinkage and rounding do not depend on their unit.
    scale = np.sqrt(spread / d)
    covariance, shrinkage = ledoit_wolf(x / scale, assume_centered=True)
    values, axes = np.linalg.eigh(covariance)
    values = np.maximum(values, 1e-12 * values[-1])
    return Space(centre, axes / np.sqrt(values) / scale, spread, float(shrinkage))


def invariance(
    clean: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], space: Space, draws: Draws
) -> dict[str, Figure]:
    """Return the metrics of one view (transformed frames) by name, each as a value with its interval.

    Args:
        clean: Features of the clean frames.
        moved: Features of the same frames after the transformation.
        space: Mean and whitening of the features of the reference frames.
        draws: Bootstrap resamples of the clusters (such as episodes) of the clean frames.
    """
    reason = unmeasurable(clean, moved, space, draws)
    if reason:
        return dict.fromkeys(METRICS, missing(reason, n=len(clean), clusters=draws.weights.shape[1]))
    scores = invariance_scores(clean, moved, space, draws)
    return {name: draws.figure(each.parts, each.statistic, limits=each.limits) for name, each in scores.items()}


def invariance_scores(
    clean: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], space: Space, draws: Draws
) -> dict[str, MetricParts]:
    """Return the terms of each metric per frame; a bootstrap later adds them up.

    Call this only if `unmeasurable` returns None.
    """
    z, z_moved = space.centre(clean), space.centre(moved)
    w, w_moved = z @ space.whitener, z_moved @ space.whitener
    return {
        "nis": MetricParts(distances(z, z_moved, draws.clusters), one_minus_ratio, UP_TO_ONE),
        "nis_w": MetricParts(distances(w, w_moved, draws.clusters), one_minus_ratio, UP_TO_ONE),
        "eric": MetricParts((unit(w) * unit(w_moved)).sum(axis=1), limits=UP_TO_ONE),
        "auc": MetricParts(nearer_than_others(z, z_moved, draws.clusters), limits=(0, 1)),
    }


def unmeasurable(clean: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], space: Space, draws: Draws) -> str | None:
    """Return why the metrics of a view (transformed frames) cannot be computed; None if they can."""
    if space.reason:
        return space.reason
    if not (np.isfinite(clean).all() and np.isfinite(moved).all()):
        return "the features are not finite"
    if draws.weights.shape[1] < 2:
        return "one cluster of frames only: there is no other to compare with"
    z = space.centre(clean)
    if np.square(z - z.mean(axis=0)).sum() / len(z) <= CONSTANT**2 * (space.mean @ space.mean):
        return "the features are the same for every frame"
    return None


def distances(z: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], of: Int[ndarray, " n"]) -> Float[ndarray, "n 2"]:
    """Return two columns: squared distances of frames to their own views (transformed frames) and to other views.

    The mean of the second column is the mean squared distance over all pairs of a frame and a view of another
    cluster (such as an episode). A frame is part of such pairs in two ways: as the clean frame and as the view. Its
    value in the second column counts both (projection of a U-statistic). Therefore a bootstrap that
    draws frames has the same variance as one that draws both members of each pair.

    Args:
        z: Features of the clean frames.
        moved: Features of the views (the same frames after the transformation).
        of: Cluster of each frame.
    """
    n, sizes = len(z), np.bincount(of)
    others = n - sizes[of]
    lengths, lengths_moved = np.square(z).sum(axis=1), np.square(moved).sum(axis=1)
    to_views = others * lengths + _of_others(lengths_moved, of) - 2 * (z * _of_others(moved, of)).sum(axis=1)
    from_clean = others * lengths_moved + _of_others(lengths, of) - 2 * (moved * _of_others(z, of)).sum(axis=1)
    num_pairs = others.sum()
    mean_distance = to_views.sum() / num_pairs
    influence = (to_views + from_clean - 2 * mean_distance * others) * n / num_pairs
    return np.column_stack([np.square(z - moved).sum(axis=1), mean_distance + influence])


def nearer_than_others(
    z: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], of: Int[ndarray, " n"]
) -> Float[ndarray, " n"]:
    """Return for each frame the share of other views that are less similar to the frame than its own view.

    A view is a transformed frame. Only views of other clusters (such as episodes) are compared. A view that is equally
    similar does not count as less similar. `of` is the cluster of each frame.
    """
    likeness = unit(z) @ unit(moved).T
    own = (unit(z) * unit(moved)).sum(axis=1)[:, None]
    rivals = of[:, None] != of
    share: Float[ndarray, " n"] = ((own > likeness + TIE) & rivals).sum(axis=1) / rivals.sum(axis=1)
    return share


def _of_others(values: Float[ndarray, "n ..."], of: Int[ndarray, " n"]) -> Float[ndarray, "n ..."]:
    """Return for each frame the sum of `values` over all frames of other clusters (such as episodes).

    `of` holds the cluster of each frame.
    """
    sums = np.zeros((of.max() + 1, *values.shape[1:]))
    np.add.at(sums, of, values)
    return np.asarray(sums.sum(axis=0) - sums[of])


def unit(z: Float[ndarray, "n d"]) -> Float[ndarray, "n d"]:
    """Return the rows scaled to length one; a row of zeros stays zero."""
    length = np.linalg.norm(z, axis=1, keepdims=True)
    return z / np.where(length > 0, length, 1)
