"""A protocol is a function that fits on features and classes of training frames, then scores classes of test frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluation import PROTOCOLS


class Predictions(NamedTuple):
    """The result of a protocol: predictions for the test frames."""

    scores: Float[ndarray, "m c"]  # class scores; rows sum to 1, so that all frames of an episode weigh the same
    details: Mapping[str, float | int | bool | str]  # settings of the protocol and what it chose, for the JSON file


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
            groups: Group of each training frame, such as its recording day; a validation split never divides a group.
            test: Features of the test frames.
            seed: Seed of all random draws.
        """
        ...


def resolve_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol of a name.

    Raises:
        InputError: no protocol has that name, or it comes from a plugin that cannot be used.
    """
    protocol: EvaluationProtocol = PROTOCOLS.resolve(name)
    return protocol
