"""Whether a view acts on features as one linear map: ridge M, z' = M z, against the identity (Lenc & Vedaldi, 2015).

Both high: invariant. The map far above the identity: equivariant. Both low: what the view did cannot be followed. A
factor whose side is drawn has one map a side; a factor whose parameter is drawn freely has none worth fitting.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.probes.bootstrap import Draws, missing, one_minus_ratio
from robossl.probes.decoding import Drawn
from robossl.probes.readout import fit_basis
from robossl.probes.result import Figure

METRICS = ("eq_map", "eq_identity")
MIN_FRAMES = 20  # of a side, below which no map is fitted


def equivariance(
    train: Drawn,
    test: Drawn,
    draws: Draws,
    *,
    train_side: Int[ndarray, " r"] | None = None,
    test_side: Int[ndarray, " n"] | None = None,
) -> dict[str, Figure]:
    """R2 of the map and of the identity, on frames the map was not fitted on.

    Args:
        train: Reference frames; their parameters do not matter here.
        test: Evaluated frames.
        draws: Resamples of the clusters of the evaluated frames.
        train_side: Which of the factor's sides was drawn; None where it has one.
        test_side: The same of the evaluated frames.
    """
    clusters = draws.weights.shape[1]
    if not all(np.isfinite(z).all() for each in (train, test) for z in (each.clean, each.moved)):
        return dict.fromkeys(METRICS, missing("the features are not finite", n=len(test.clean), clusters=clusters))
    side = np.zeros(len(train.clean), np.int64) if train_side is None else train_side
    asked = np.zeros(len(test.clean), np.int64) if test_side is None else test_side
    predicted = np.full(test.moved.shape, np.nan)
    for each in np.unique(asked):
        seen, held = side == each, asked == each
        if seen.sum() < MIN_FRAMES:
            reason = f"{seen.sum()} reference frames of a side, {MIN_FRAMES} are needed"
            return dict.fromkeys(METRICS, missing(reason, n=len(test.clean), clusters=clusters))
        basis = fit_basis(train.clean[seen])
        target = train.moved[seen].astype(np.float64)
        penalty = basis.choose(target @ _directions(target.shape[1]))
        predicted[held] = basis.fit(target, penalty)(test.clean[held].astype(np.float64))
    centre = train.moved.astype(np.float64).mean(axis=0)
    total = np.square(test.moved - centre).sum(axis=1)
    found = {"eq_map": predicted, "eq_identity": test.clean.astype(np.float64)}
    return {
        name: draws.figure(np.column_stack([np.square(test.moved - z).sum(axis=1), total]), one_minus_ratio)
        for name, z in found.items()
    }


def _directions(dim: int) -> Float[ndarray, "d k"]:
    """Random directions: the error along a few of them chooses the penalty as well as along all."""
    return np.random.default_rng(0).normal(size=(dim, min(dim, 32)))
