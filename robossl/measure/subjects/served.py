"""Encoders on a server, `grpc://host:port/model`, which return exactly the features that robots get."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robossl.encoders.served_encoder import DEADLINE_MS, ServedEncoder
from robossl.measure.subjects.encoders import from_encode
from robossl.measure.subjects.subject import Output, Subject, available_outputs


def open_served(
    source: str,
    *,
    outputs: Sequence[Output],
    token: Path | None = None,
    ca: Path | None = None,
    deadline_ms: float = DEADLINE_MS,
) -> Subject:
    """Connect to an encoder on a server. If the server replaces this encoder later, calls raise an error.

    Args:
        source: Address as in grpc://host:port/model.
        outputs: Outputs to return.
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate. If given, the connection is encrypted.
        deadline_ms: Longest time that a call may take, in milliseconds.

    Raises:
        InputError: the address is invalid, the model or output unknown, a file missing, or the token wrong.
        ResourceError: the server does not answer.
    """
    served = ServedEncoder(
        source, lambda card: available_outputs(outputs, card.outputs), token=token, ca=ca, deadline_ms=deadline_ms
    )
    return from_encode(served, source, kind="grpc", outputs=outputs)
