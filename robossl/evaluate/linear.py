"""Linear probe: logistic regression on standardised frozen features, its penalty chosen on train alone.

Classes weigh equally whatever their size, since the score is balanced accuracy. C is chosen by stratified
cross-validation in which a group (a recording day or an episode) is never on both sides: frames of one
episode are near copies, and a split through them would choose too small a penalty.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluate.protocol import Scores
from robossl.statistics import balanced_accuracy

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

GRID = (
    1e-5,
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
)  # C of scikit-learn: the inverse of the l2 penalty, larger is freer
FOLDS = 3
MAX_ITERATIONS = 5000


def linear(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    seed: int,
) -> Scores:
    """Class probabilities of the test frames, from a fit with the C that cross-validation preferred."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    std[std < 1e-6 * np.abs(mean) + 1e-12] = 1.0  # a feature that never changes stays at zero
    train, test = (train - mean) / std, (test - mean) / std
    accuracy = cross_validate(train, labels, groups, seed=seed)
    best = int(np.argmax(accuracy))  # of equals the first, which is the most regularised
    model, converged = fit(train, labels, GRID[best])
    details = {
        "c": GRID[best],
        "c_at_edge_of_grid": best in (0, len(GRID) - 1),
        "cross_validated": float(accuracy[best]),
        "folds": FOLDS,
        "converged": converged,
        "iterations": int(model.n_iter_.max()),
    }
    return Scores(model.predict_proba(test), details)


def cross_validate(
    train: Float[ndarray, "n d"], labels: Int[ndarray, " n"], groups: Int[ndarray, " n"], *, seed: int
) -> Float[ndarray, " grid"]:
    """Mean balanced accuracy over folds for each C; a class that a fold has not seen counts as missed."""
    from sklearn.model_selection import StratifiedGroupKFold

    accuracy = np.zeros((FOLDS, len(GRID)))
    with warnings.catch_warnings():
        # A class with fewer groups than folds is absent from some folds; the mean is over those it is in.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        folds = list(splitter.split(train, labels, groups))
    for i, (seen, held) in enumerate(folds):
        for j, c in enumerate(GRID):
            model, _ = fit(train[seen], labels[seen], c)
            accuracy[i, j] = balanced_accuracy(labels[held], model.predict(train[held]))
    mean: Float[ndarray, " grid"] = accuracy.mean(axis=0)
    return mean


def fit(features: Float[ndarray, "n d"], labels: Int[ndarray, " n"], c: float) -> tuple[LogisticRegression, bool]:
    """One fit; whether it converged is returned, not warned."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=c, class_weight="balanced", max_iter=MAX_ITERATIONS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    return model, not caught
