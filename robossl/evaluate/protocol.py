"""The interface of a protocol: from features and classes of training frames to class scores of test frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluate import PROTOCOLS


class Scores(NamedTuple):
    """The result of a protocol."""

    scores: Float[ndarray, "m c"]  # each row sums to 1, so that the frames of an episode weigh the same
    details: Mapping[str, float | int | bool | str]  # settings and choices, for the JSON


class EvaluationProtocol(Protocol):
    """A function that learns from the training frames; it never sees a test label."""

    def __call__(
        self,
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Scores:
        """Score test frames.

        Args:
            train: Features of the training frames.
            labels: Their classes, 0 to c - 1, none missing.
            groups: Keep frames of one group on one side of a validation split.
            test: Features of the test frames.
            seed: Seed of all random draws.
        """
        ...


def resolve_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol of a name.

    Raises:
        InputError: no protocol has that name, or a plugin that cannot be used.
    """
    protocol: EvaluationProtocol = PROTOCOLS.resolve(name)
    return protocol
