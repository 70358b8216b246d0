"""Measure how well a linear map M or the identity predicts the features of a view: z' = M z (Lenc & Vedaldi, 2015).

A view is a transformed frame; z' are its features, and z are those of the clean frame. If both M and the identity
predict z' well, the features are invariant. If M predicts z' far better than the identity, the features are
equivariant. If both predict z' badly, the features do not follow the transformation in a linear way. A factor with two
sides (such as left and right) has one M for each side. A factor with a continuous parameter has no single M.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import UP_TO_ONE, Draws, Figure, missing, one_minus_ratio
from robossl.measure.ridge import fit_basis
from robossl.probes.decoding import FramePairs

METRICS = ("eq_map", "eq_identity")
MIN_FRAMES = 20  # minimum number of reference frames to fit a linear map, for each side of the factor


def equivariance(
    train: FramePairs,
    test: FramePairs,
    draws: Draws,
    *,
    train_side: Int[ndarray, " r"] | None = None,
    test_side: Int[ndarray, " n"] | None = None,
) -> dict[str, Figure]:
    """Return R2 of the linear map (`eq_map`) and of the identity (`eq_identity`) on the evaluated frames.

    Args:
        train: Reference frames, on which the map is fitted. The field `parameter` is not used.
        test: Evaluated frames.
        draws: Bootstrap resamples of the clusters (such as episodes) of the evaluated frames.
        train_side: Side of the factor that was drawn for each reference frame; None if the factor has one side.
        test_side: Side that was drawn for each evaluated frame; None if the factor has one side.
    """
    clusters = draws.weights.shape[1]
    if not all(np.isfinite(z).all() for each in (train, test) for z in (each.clean, each.moved)):
        return dict.fromkeys(METRICS, missing("the features are not finite", n=len(test.clean), clusters=clusters))
    side = np.zeros(len(train.clean), np.int64) if train_side is None else train_side
    other = np.zeros(len(test.clean), np.int64) if test_side is None else test_side
    predicted = np.full(test.moved.shape, np.nan)
    for each in np.unique(other):
        seen, held = side == each, other == each
        if seen.sum() < MIN_FRAMES:
            reason = f"{seen.sum()} reference frames of a side, {MIN_FRAMES} are needed"
            return dict.fromkeys(METRICS, missing(reason, n=len(test.clean), clusters=clusters))
        basis = fit_basis(train.clean[seen])
        target = train.moved[seen].astype(np.float64)
        penalty = basis.choose(target @ _directions(target.shape[1]))
        predicted[held] = basis.fit(target, penalty)(test.clean[held].astype(np.float64))
    centre = train.moved.astype(np.float64).mean(axis=0)
    total = np.square(test.moved - centre).sum(axis=1)
    maps = {"eq_map": predicted, "eq_identity": test.clean.astype(np.float64)}
    parts = {name: np.column_stack([np.square(test.moved - z).sum(axis=1), total]) for name, z in maps.items()}
    return {name: draws.figure(each, one_minus_ratio, limits=UP_TO_ONE) for name, each in parts.items()}


def _directions(dim: int) -> Float[ndarray, "d k"]:
    """Return up to 32 random directions in feature space. The error along them suffices to choose the penalty."""
    return np.random.default_rng(0).normal(size=(dim, min(dim, 32)))
