"""What a protocol is: features and classes of training frames in, class scores of test frames out."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import NamedTuple, Protocol, cast

from jaxtyping import Float, Int
from numpy import ndarray

from robossl.errors import InputError
from robossl.evaluate import PROTOCOLS
from robossl.names import unknown


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
    """Import a protocol by its name in `PROTOCOLS`.

    Raises:
        InputError: unknown name; the nearest is named.
    """
    if name not in PROTOCOLS:
        raise InputError(unknown("protocol", name, PROTOCOLS))
    return cast(EvaluationProtocol, pkgutil.resolve_name(PROTOCOLS[name]))
