"""Decode the parameter of a transformation, such as its angle, from features.

The score says how well a robot policy could infer the transformation from these features. The protocol `abs` decodes
from the features of the view (transformed frame) alone, like a policy without memory. The protocol `rel` decodes from
the features of the view minus those of the clean frame, like a policy that has seen the clean frame. The score is R2
or (accuracy - 1/K) / (1 - 1/K) for K classes. A score of 0 is chance, 1 is perfect. A high score alone is not a fault.
Compare each score with those of the reference encoders (baselines). If a parameter cannot be decoded from any of them,
a low score says nothing about the encoder under test.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.figures import UP_TO_ONE, Draws, Figure, mean, missing
from robossl.measure.metrics import R2, above_chance, one_hot
from robossl.measure.ridge import Basis, fit_basis
from robossl.probes.result import Decoding

NUM_SHUFFLES = 99  # number of fits to shuffled parameters; enough for a 95 % range of chance scores
HIDDEN = 128
MLP_COMPONENTS = 128
MLP_EPOCHS = 25
# An MLP is fitted only if the number of reference frames (frames for fits) is at least this limit times the number of
# classes. A parameter that is a number counts as two classes.
LEAST_PER_CLASS = 10
# Rounding error of a feature, relative to its size. Outputs of a float32 network for equal inputs differ by about this.
ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Features of frames before and after a transformation whose parameter was drawn for each frame.

    Args:
        clean: Features of the clean frames.
        moved: Features of the transformed frames.
        parameter: The parameter of each frame: numbers to regress (one angle, or two shifts), or a class 0 to K - 1.
    """

    clean: Float[ndarray, "n d"]
    moved: Float[ndarray, "n d"]
    parameter: Float[ndarray, "n t"]


def decode(
    train: FramePairs,
    test: FramePairs,
    draws: Draws,
    *,
    factor: str,
    level: int,
    num_classes: int,
    mlp: bool = True,
    num_shuffles: int = NUM_SHUFFLES,
    seed: int = 0,
) -> tuple[Decoding, ...]:
    """Fit a linear probe and an MLP by both protocols (`abs` and `rel`, see the module); return their scores.

    Args:
        train: Reference frames; the probes are fitted on them.
        test: Evaluated frames; they share no cluster (such as an episode) with the reference frames.
        draws: Bootstrap resamples of the clusters of the evaluated frames.
        factor: Name of the factor, for the results.
        level: Level of the factor, for the results.
        num_classes: Number of classes of the parameter; 0 if it is a number.
        mlp: Fit the MLP in addition to the linear probe.
        num_shuffles: Number of linear fits to shuffled parameters, which give the range of chance scores.
        seed: Seed of the shuffles and the MLP.
    """
    target = _Target.of(train.parameter, test.parameter, num_classes)
    scores: list[tuple[Any, Any, _ProbeScore]] = []
    for protocol in ("abs", "rel"):
        # Ignore warnings about features that are not finite. `_probes` returns a reason for them instead of a score.
        with np.errstate(invalid="ignore"):
            inputs = [each.moved if protocol == "abs" else each.moved - each.clean for each in (train, test)]
        # Features that vary less than the rounding error count as constant. Otherwise a probe could decode the
        # transformation from the rounding errors of an encoder that ignores it.
        rounding = ROUNDING * np.sqrt(np.square(train.clean).mean(axis=0)) if protocol == "rel" else 0.0
        scored = _probes(inputs[0], inputs[1], target, draws, num_shuffles, seed, mlp=mlp, rounding=rounding)
        scores += [(protocol, probe, each) for probe, each in scored.items()]
    return tuple(
        Decoding(
            factor=factor,
            level=level,
            protocol=protocol,
            probe=probe,
            kind="classification" if num_classes else "regression",
            figure=scored.figure,
            accuracy=scored.accuracy,
            chance=1 / num_classes if num_classes else None,
            shuffled=scored.shuffled,
        )
        for protocol, probe, scored in scores
    )


@dataclass(frozen=True, slots=True)
class _ProbeScore:
    figure: Figure
    accuracy: float | None
    shuffled: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class _Target:
    """Holds the parameter as columns to regress (standardised numbers or one-hot classes), and scores predictions."""

    train: Float[ndarray, "n t"]
    test: Float[ndarray, "m t"]
    num_classes: int  # 0 if the parameter is a number

    @classmethod
    def of(cls, train: Float[ndarray, "n t"], test: Float[ndarray, "m t"], num_classes: int) -> _Target:
        train, test = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (train, test))
        if num_classes:
            hot = [one_hot(each[:, 0].astype(np.int64), num_classes) for each in (train, test)]
            return cls(hot[0], hot[1], num_classes)
        centre, scale = train.mean(axis=0), train.std(axis=0)
        scale = np.where(scale > 0, scale, 1)
        return cls((train - centre) / scale, (test - centre) / scale, 0)

    def figure(self, predicted: Float[ndarray, "m t"], draws: Draws) -> Figure:
        if not self.num_classes:
            score = R2(tuple((j,) for j in range(self.test.shape[1])))
            return draws.figure(score.parts(self.test, predicted), score, limits=UP_TO_ONE)
        chance = above_chance(self.hits(predicted), self.num_classes)
        return draws.figure(chance, mean, limits=(float(above_chance(0, self.num_classes)), 1))

    def hits(self, predicted: Float[ndarray, "m *s t"]) -> Float[ndarray, "m ..."]:
        truth = self.test.argmax(axis=1).reshape(-1, *[1] * (predicted.ndim - 2))
        hits: Float[ndarray, "m ..."] = (predicted.argmax(axis=-1) == truth).astype(np.float64)
        return hits

    def scores(self, predicted: Float[ndarray, "m s t"]) -> Float[ndarray, " s"]:
        """Return a score without an interval for each of `s` sets of predictions."""
        if self.num_classes:
            return np.asarray(above_chance(self.hits(predicted).mean(axis=0), self.num_classes))
        error = np.square(predicted - self.test[:, None]).sum(axis=0)
        deviation = np.square(self.test - self.test.mean(axis=0)).sum(axis=0)
        explained: Float[ndarray, " s"] = (1 - error / deviation).mean(axis=1)
        return explained


def _probes(
    train: Any, test: Any, target: _Target, draws: Draws, num_shuffles: int, seed: int, *, mlp: bool, rounding: Any
) -> dict[str, _ProbeScore]:
    names = ("linear", "mlp") if mlp else ("linear",)
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        figure = missing("the features are not finite", n=len(test), clusters=draws.weights.shape[1])
        return dict.fromkeys(names, _ProbeScore(figure, None, None))
    basis = fit_basis(train, rounding=rounding)
    penalty = basis.choose(target.train)
    predicted = {"linear": basis.fit(target.train, penalty)(test)}
    enough = len(train) >= LEAST_PER_CLASS * max(2, target.num_classes)
    if target.num_classes:
        # Each class needs two frames: one for the fit and one for early stopping.
        enough = enough and target.train.sum(axis=0).min() >= 2
    if mlp and enough:
        predicted["mlp"] = _mlp(basis, train, test, target, seed)
    shuffled = {"linear": _shuffled(basis, test, target, penalty, num_shuffles, seed)}
    scores = {
        name: _ProbeScore(
            target.figure(each, draws),
            float(target.hits(each).mean()) if target.num_classes else None,
            shuffled.get(name),
        )
        for name, each in predicted.items()
    }
    if mlp and not enough:
        few = missing("too few reference frames for an MLP", n=len(test), clusters=draws.weights.shape[1])
        scores["mlp"] = _ProbeScore(few, None, None)
    return scores


def _shuffled(
    basis: Basis, test: Float[ndarray, "m d"], target: _Target, penalty: float, num: int, seed: int
) -> tuple[float, float] | None:
    """Fit `num` linear probes to shuffled parameters; return the range that holds the middle 95 % of their scores.

    Return None if `num` is 0 or a score is not finite.
    """
    if not num:
        return None
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(len(target.train)) for _ in range(num)], axis=1)
    columns = target.train[orders].reshape(len(orders), -1)  # a column for each pair of shuffle and target column
    # If the parameter cannot be decoded, the chosen penalty is very large. All predictions would then be equal.
    # Limit the penalty, so that the scores of the shuffled fits vary.
    penalty = min(penalty, 1.0)
    predicted = basis.fit(columns, penalty)(test).reshape(len(test), num, -1)
    # Ignore warnings about a constant parameter: its deviation is 0, so its score is not finite.
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = target.scores(predicted)
    if not np.isfinite(scores).all():
        return None
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _mlp(basis: Basis, train: Any, test: Any, target: _Target, seed: int) -> Float[ndarray, "m t"]:
    """Fit an MLP with one hidden layer on the leading principal components; return its predictions for `test`.

    Early stopping uses a tenth of the training frames.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    scale = np.sqrt(len(train))
    seen, held = ((basis.components(x)[:, :MLP_COMPONENTS] * scale).astype(np.float32) for x in (train, test))
    if not seen.shape[1]:
        return np.zeros((len(test), target.test.shape[1]))
    make = MLPClassifier if target.num_classes else MLPRegressor
    early = {"early_stopping": True, "n_iter_no_change": 6}
    step = {"batch_size": int(np.clip(len(seen) // 10, 8, 200)), "learning_rate_init": 4e-3}
    model = make(hidden_layer_sizes=(HIDDEN,), max_iter=MLP_EPOCHS, random_state=seed, **early, **step)
    with warnings.catch_warnings():
        # The fit is meant to stop after MLP_EPOCHS, even if it has not converged.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if not target.num_classes:
            columns = target.train if target.train.shape[1] > 1 else target.train[:, 0]
            return np.asarray(model.fit(seen, columns).predict(held)).reshape(len(test), -1)
        model.fit(seen, target.train.argmax(axis=1))
    predicted = np.zeros((len(test), target.num_classes))
    predicted[:, model.classes_] = model.predict_proba(held)
    return predicted
