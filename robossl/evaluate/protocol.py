"""Protocols: functions from features and classes of training frames to class scores of test frames."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.errors import InputError
from robossl.evaluate import PROTOCOLS
from robossl.names import unknown


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
    """Import a protocol by its name in `PROTOCOLS`.

    Raises:
        InputError: an unknown name.
    """
    if name not in PROTOCOLS:
        raise InputError(unknown("protocol", name, PROTOCOLS))
    return cast(EvaluationProtocol, pkgutil.resolve_name(PROTOCOLS[name]))
