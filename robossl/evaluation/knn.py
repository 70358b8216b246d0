"""The kNN protocol: weighted votes of the 20 nearest training frames. Frequent classes get more votes."""

from __future__ import annotations

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluation.protocol import Predictions
from robossl.measure.knn import TEMPERATURE, K, weighted_knn


def knn(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    seed: int,
) -> Predictions:
    """Score test frames by their nearest training frames.

    `groups` and `seed` have no effect, because nothing is fitted.
    """
    details = {"k": min(K, len(train)), "temperature": TEMPERATURE, "centred": False}
    return Predictions(weighted_knn(train, labels, test), details)
