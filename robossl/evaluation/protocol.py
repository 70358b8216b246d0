"""Evaluation protocols: functions that learn classes from features of training frames, then classify test frames."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.common.plugins import code_name, type_name
from robossl.errors import InputError
from robossl.evaluation import PROTOCOLS

SUM_ERROR = 1e-3  # how far the sum of a row of scores may be from 1


class Predictions(NamedTuple):
    """The result of a protocol: predictions for the test frames."""

    # Score of each class for each frame. Each row sums to 1, so that all frames of an episode have equal weight.
    scores: Float[ndarray, "m c"]
    # Settings of the protocol, and values that it chose (such as a penalty), for the JSON file.
    details: Mapping[str, float | int | bool | str] = MappingProxyType({})


class EvaluationProtocol(Protocol):
    """A function that scores test frames without seeing their labels."""

    def __call__(
        self,
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Predictions:
        """Fit on the training frames and score the classes of the test frames.

        Args:
            train: Features of the training frames.
            labels: Class of each training frame, from 0 to c - 1; every class occurs.
            groups: Group of each training frame, such as its recording day. Cross-validation never divides a group.
            test: Features of the test frames.
            seed: Seed of all random draws.
        """
        ...


def resolve_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol with this name.

    Raises:
        InputError: no protocol has that name, or it comes from a plugin that cannot be used.
    """
    protocol: EvaluationProtocol = PROTOCOLS.resolve(name)
    return protocol


def checked(protocol: EvaluationProtocol) -> EvaluationProtocol:
    """Return a protocol that raises InputError if its predictions cannot be used."""

    @wraps(protocol)
    def check(
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Predictions:
        found: object = protocol(train, labels, groups, test, seed=seed)
        about = f"{code_name(protocol)}()"
        if not isinstance(found, Predictions):
            raise InputError(f"{about} returned {type_name(found)}; return Predictions(scores, details)")
        wrong = _why_wrong_scores(found.scores, (len(test), int(labels.max()) + 1)) or _why_wrong_details(found.details)
        if wrong:
            raise InputError(f"{about} returned {wrong}")
        return found

    return check


def _why_wrong_scores(scores: object, shape: tuple[int, int]) -> str:
    wanted = f"{shape}, a row for each test frame and a column for each class"
    if not isinstance(scores, np.ndarray):
        return f"{type_name(scores)} as scores; they must be a numpy array {wanted}"
    if scores.shape != shape or scores.dtype.kind != "f":
        return f"scores {scores.shape} {scores.dtype}; they must be floats {wanted}"
    num_bad = int((~np.isfinite(scores)).any(axis=1).sum())
    if num_bad:
        return f"scores that are not finite for {num_bad} of {len(scores)} test frames; they must be probabilities"
    sums = scores.sum(axis=1, dtype=np.float64)
    worst = int(np.abs(sums - 1).argmax())
    if abs(sums[worst] - 1) > SUM_ERROR or scores.min() < -SUM_ERROR:
        return (
            f"scores from {scores.min():.3g} to {scores.max():.3g}, with a row that sums to {sums[worst]:.3g}; they "
            "must be probabilities: 0 or more, and every row sums to 1"
        )
    return ""


def _why_wrong_details(details: object) -> str:
    wanted = "a dict of bool, int, float and str"
    if not isinstance(details, Mapping):
        return f"{type_name(details)} as details; they must be {wanted}"
    others = [name for name, value in details.items() if not isinstance(value, bool | int | float | str)]
    return f"details with {type_name(details[others[0]])} as {others[0]}; they must be {wanted}" if others else ""
