"""Encoders on a server, `grpc://host:port/model`: exactly what robots get."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robossl.measure.subjects.encoders import from_encode
from robossl.measure.subjects.subject import Output, Subject, available_outputs
from robossl.served_encoder import DEADLINE_MS, ServedEncoder


def open_served(
    source: str,
    *,
    outputs: Sequence[Output],
    token: Path | None = None,
    ca: Path | None = None,
    deadline_ms: float = DEADLINE_MS,
) -> Subject:
    """Connect to a server and pin its encoder, so that a replaced encoder is an error.

    Args:
        source: grpc://host:port/model.
        outputs: Outputs to return.
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate; encrypts the connection.
        deadline_ms: Longest time of a call.

    Raises:
        InputError: an invalid address, an unknown model or output, a missing file, or a wrong token.
        ResourceError: the server does not answer.
    """
    served = ServedEncoder(
        source, lambda card: available_outputs(outputs, card.outputs), token=token, ca=ca, deadline_ms=deadline_ms
    )
    return from_encode(served, source, kind="grpc", outputs=outputs)
