"""Protocols: functions from features and classes of training frames to class scores of test frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.evaluate import PROTOCOLS


class Predictions(NamedTuple):
    """The result of a protocol."""

    scores: Float[ndarray, "m c"]  # rows sum to 1, so that all frames of an episode have equal weight
    details: Mapping[str, float | int | bool | str]  # settings and choices, for the JSON


class EvaluationProtocol(Protocol):
    """A function that never sees test labels."""

    def __call__(
        self,
        train: Float[ndarray, "n d"],
        labels: Int[ndarray, " n"],
        groups: Int[ndarray, " n"],
        test: Float[ndarray, "m d"],
        *,
        seed: int,
    ) -> Predictions:
        """Score test frames.

        Args:
            train: Features of the training frames.
            labels: Their classes, all of 0 to c - 1.
            groups: Group of each training frame; a validation split never divides a group.
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
