"""Whether a view acts on features as one linear map z' = M z, compared with the identity (Lenc & Vedaldi, 2015).

Both scores high: invariant. The map far above the identity: equivariant. Both low: features do not follow the view. A
factor with drawn sides has one map per side; a factor with a continuous parameter has no single map.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import Draws, Figure, missing, one_minus_ratio
from robossl.measure.ridge import fit_basis
from robossl.probes.decoding import FramePairs

METRICS = ("eq_map", "eq_identity")
MIN_FRAMES = 20  # of a side, for a map


def equivariance(
    train: FramePairs,
    test: FramePairs,
    draws: Draws,
    *,
    train_side: Int[ndarray, " r"] | None = None,
    test_side: Int[ndarray, " n"] | None = None,
) -> dict[str, Figure]:
    """Return R2 of the map and of the identity on the evaluated frames.

    Args:
        train: Reference frames; their parameters are not used.
        test: Evaluated frames.
        draws: Resamples of the clusters of the evaluated frames.
        train_side: Drawn side of each reference frame; None for one side.
        test_side: Drawn side of each evaluated frame.
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
    return {
        name: draws.figure(np.column_stack([np.square(test.moved - z).sum(axis=1), total]), one_minus_ratio)
        for name, z in maps.items()
    }


def _directions(dim: int) -> Float[ndarray, "d k"]:
    """Return random directions; the error along a few of them is enough to choose the penalty."""
    return np.random.default_rng(0).normal(size=(dim, min(dim, 32)))
