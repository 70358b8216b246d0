"""Decode the parameter of a transformation from features: what a policy could know about it.

`abs` decodes from the features of the view alone, like a policy without memory. `rel` decodes from their difference to
the clean features, like a policy with a reference frame. A score of 0 is chance, 1 is perfect: R2, or
(accuracy - 1/K) / (1 - 1/K). A decodable parameter does no harm. Compare with the references: if no encoder decodes a
parameter, the score says nothing about this one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.figures import Draws, Figure, mean, missing
from robossl.measure.metrics import R2, above_chance, one_hot
from robossl.measure.ridge import Basis, fit_basis
from robossl.probes.result import Decoding

NUM_SHUFFLES = 99  # for a 95 % range
HIDDEN = 128
MLP_COMPONENTS = 128
MLP_EPOCHS = 25
LEAST_PER_CLASS = 10  # reference frames for an MLP, which uses a tenth of them for early stopping
ROUNDING = 1e-5  # of a feature's size: differences of a float32 network on equal inputs


@dataclass(frozen=True, slots=True)
class FramePairs:
    """Frames with and without a transformation whose parameter was drawn per frame.

    Args:
        clean: Features of the clean frames.
        moved: Features of the transformed frames.
        parameter: Numbers to regress (an angle, both shifts), or one column of classes 0 to K - 1.
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
    """Fit linear and MLP probes on the view alone and on its difference to the clean frame.

    Args:
        train: Reference frames.
        test: Evaluated frames; they share no cluster with the reference.
        draws: Resamples of the clusters of the evaluated frames.
        factor: Factor to name in the results.
        level: Level to name in the results.
        num_classes: Number of classes of the parameter; 0 for numbers.
        mlp: Fit the MLP too.
        num_shuffles: Linear fits to shuffled parameters, for the range of chance scores.
        seed: Seed of the shuffles and the MLP.
    """
    target = _Target.of(train.parameter, test.parameter, num_classes)
    scores: list[tuple[Any, Any, _ProbeScore]] = []
    for protocol in ("abs", "rel"):
        with np.errstate(invalid="ignore"):  # `_probes` gives the reason for features that are not finite
            inputs = [each.moved if protocol == "abs" else each.moved - each.clean for each in (train, test)]
        # Without this floor, rounding differences reveal the transformation of a perfectly invariant encoder.
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
    """The parameter as standardised columns to regress, and the scores of predictions."""

    train: Float[ndarray, "n t"]
    test: Float[ndarray, "m t"]
    num_classes: int  # 0: numbers

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
            return draws.figure(score.parts(self.test, predicted), score)
        chance = above_chance(self.hits(predicted), self.num_classes)
        return draws.figure(chance, mean, limits=(float(above_chance(0, self.num_classes)), 1))

    def hits(self, predicted: Float[ndarray, "m *s t"]) -> Float[ndarray, "m ..."]:
        truth = self.test.argmax(axis=1).reshape(-1, *[1] * (predicted.ndim - 2))
        hits: Float[ndarray, "m ..."] = (predicted.argmax(axis=-1) == truth).astype(np.float64)
        return hits

    def scores(self, predicted: Float[ndarray, "m s t"]) -> Float[ndarray, " s"]:
        """Return the scores of many predictions, without intervals."""
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
        enough = enough and target.train.sum(axis=0).min() >= 2  # one of each class for early stopping
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
    """Return the middle 95 % of the scores of fits to shuffled parameters."""
    if not num:
        return None
    generator = np.random.default_rng(seed)
    orders = np.stack([generator.permutation(len(target.train)) for _ in range(num)], axis=1)
    columns = target.train[orders].reshape(len(orders), -1)  # one per shuffle and dimension
    penalty = min(penalty, 1.0)  # with the large penalty of an unreadable parameter all predictions would be equal
    predicted = basis.fit(columns, penalty)(test).reshape(len(test), num, -1)
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant parameter has no score
        scores = target.scores(predicted)
    if not np.isfinite(scores).all():
        return None
    low, high = np.quantile(scores, [0.025, 0.975])
    return float(low), float(high)


def _mlp(basis: Basis, train: Any, test: Any, target: _Target, seed: int) -> Float[ndarray, "m t"]:
    """Fit one hidden layer on the leading components, with early stopping on a tenth of the training frames."""
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
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping after MLP_EPOCHS is intended
        if not target.num_classes:
            columns = target.train if target.train.shape[1] > 1 else target.train[:, 0]
            return np.asarray(model.fit(seen, columns).predict(held)).reshape(len(test), -1)
        model.fit(seen, target.train.argmax(axis=1))
    predicted = np.zeros((len(test), target.num_classes))
    predicted[:, model.classes_] = model.predict_proba(held)
    return predicted
