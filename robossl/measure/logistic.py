"""Logistic regression whose penalty is chosen by cross-validation over whole groups.

All classes have equal weight, because the score is balanced accuracy. A group (a recording day or an episode) is never
split between training and held-out frames. Frames of one episode are near copies, so with a split inside an episode the
chosen penalty would be too small.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.metrics import balanced_accuracy

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # values tried for scikit-learn's C, the inverse of the l2 penalty
UNVALIDATED = 1e-2  # C if some class has a single group, so that no group can be held out
FOLDS = 3  # number of folds; fewer if a class has fewer groups
MAX_ITERATIONS = 5000
# If the training features contain fewer numbers than this, one thread is faster (6 times faster than two threads).
ONE_THREAD = 2**24


def choose_c(
    train: Float[ndarray, "n d"], labels: Int[ndarray, " n"], groups: Int[ndarray, " n"], *, seed: int
) -> dict[str, float | int | bool]:
    """Choose the C with the best mean balanced accuracy over folds; ties go to the smallest C.

    Return the chosen C, the number of folds and, if there were folds, the accuracy, as a dict for a report.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    num_folds = min(FOLDS, *(len(np.unique(groups[labels == c])) for c in np.unique(labels)))
    if num_folds < 2:
        return {"c": UNVALIDATED, "folds": 0}
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    accuracy = np.zeros((num_folds, len(GRID)))
    for i, (seen, held) in enumerate(splitter.split(train, labels, groups)):
        for j, c in enumerate(GRID):
            model, _ = fit_logistic(train[seen], labels[seen], c)
            accuracy[i, j] = balanced_accuracy(labels[held], model.predict(train[held]))
    mean = accuracy.mean(axis=0)
    best = int(mean.argmax())
    at_edge = best in (0, len(GRID) - 1)
    return {"c": GRID[best], "folds": num_folds, "cross_validated": float(mean[best]), "c_at_edge_of_grid": at_edge}


def fit_logistic(
    features: Float[ndarray, "n d"], labels: Int[ndarray, " n"], c: float
) -> tuple[LogisticRegression, bool]:
    """Fit a model; return it and whether the fit converged. scikit-learn's warning about convergence is suppressed."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=c, class_weight="balanced", max_iter=MAX_ITERATIONS)
    num_threads = 1 if features.size < ONE_THREAD else None
    with threadpool_limits(num_threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    return model, not caught
