"""What a protocol is: features and classes of training frames in, class scores of test frames out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluate import PROTOCOLS


class Scores(NamedTuple):
    """What a protocol returns."""

    scores: Float[ndarray, "m c"]  # a row sums to 1, so that frames of an episode average with equal weight
    details: Mapping[str, float | int | bool | str]  # settings and what was chosen, for the JSON


class EvaluationProtocol(Protocol):
    """A protocol is a function; it sees no test label."""

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
            groups: Frames of one group are never on both sides of a validation split.
            test: Features of the test frames.
            seed: Seed of whatever is drawn.
        """
        ...


def resolve_protocol(name: str) -> EvaluationProtocol:
    """Return the protocol of a name.

    Raises:
        InputError: no protocol has that name, or a plugin that cannot be used.
    """
    protocol: EvaluationProtocol = PROTOCOLS.resolve(name)
    return protocol
