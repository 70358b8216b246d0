"""Evaluation protocols: functions that learn classes from features of training frames, then classify test frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluation import PROTOCOLS


class Predictions(NamedTuple):
    """The result of a protocol: predictions for the test frames."""

    # Score of each class for each frame. Each row sums to 1, so that all frames of an episode have equal weight.
    scores: Float[ndarray, "m c"]
    # Settings of the protocol, and values that it chose (such as a penalty), for the JSON file.
    details: Mapping[str, float | int | bool | str]


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
