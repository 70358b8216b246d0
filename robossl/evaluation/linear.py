"""The linear protocol: logistic regression on standardised features, with a penalty chosen on the training split."""

from __future__ import annotations

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluation.protocol import Predictions
from robossl.measure.logistic import choose_c, fit_logistic
from robossl.measure.ridge import is_live


def linear(
    train: Float[ndarray, "n d"],
    labels: Int[ndarray, " n"],
    groups: Int[ndarray, " n"],
    test: Float[ndarray, "m d"],
    *,
    seed: int,
) -> Predictions:
    """Return class probabilities of the test frames."""
    mean, std = train.mean(axis=0), train.std(axis=0)
    # A constant feature has a std of 0. Use 1 instead, so that the standardised feature is 0 and not nan.
    std[~is_live(mean, std)] = 1.0
    train, test = (train - mean) / std, (test - mean) / std
    choice = choose_c(train, labels, groups, seed=seed)
    model, converged = fit_logistic(train, labels, float(choice["c"]))
    return Predictions(
        model.predict_proba(test), {**choice, "converged": converged, "iterations": int(model.n_iter_.max())}
    )
