"""Encoders on a server, `grpc://host:port/model`: exactly what robots get."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from robossl_client.card import EncoderCard

from robossl.access import access
from robossl.errors import InputError, ResourceError, reason
from robossl.measure.subjects.encoders import from_encode
from robossl.measure.subjects.subject import Output, Subject, available_outputs
from robossl.plugins import ENCODERS

MESSAGE_BYTES = 16 * 2**20  # of pixels in one call: half the default limit of servers
DEADLINE_MS = 60_000.0  # of one call, including retries while the server is away


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
    address, model = split_address(source)
    options = {
        "model": model or None,
        **access(token, ca),
        "deadline_ms": deadline_ms,
        "connect_ms": min(deadline_ms, 10_000.0),
    }
    served = ServedEncode(source, partial(pkgutil.resolve_name(ENCODERS["grpc"]), address, **options), outputs)
    return from_encode(served, source, kind="grpc", outputs=outputs)


def split_address(source: str) -> tuple[str, str]:
    """Split grpc://host:port/model into the server and the model, which may be empty.

    Raises:
        InputError: an invalid address.
    """
    address = urlsplit(source)
    model = address.path.strip("/")
    if not address.netloc or "/" in model:
        raise InputError(f"{source!r} is not grpc://host:port/model; leave out the model if the server has only one")
    return address.netloc, model


class ServedEncode:
    """An `Encode` that calls a server and raises our errors."""

    def __init__(self, source: str, connect: Callable[..., Any], outputs: Sequence[Output]) -> None:
        self._source = source
        try:
            with connect() as client:
                card: EncoderCard = client.card
            self._client = connect(outputs=available_outputs(outputs, card.outputs))
        except Exception as error:
            raise self._translate(error) from error
        self.card = card

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Embed frames in calls that are small enough for the server."""
        size = max(1, MESSAGE_BYTES // max(1, frames[:1].nbytes))
        try:
            parts = [self._client(frames[start : start + size]) for start in range(0, len(frames), size)]
        except Exception as error:
            raise self._translate(error) from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _translate(self, error: Exception) -> Exception:
        from robossl_client import errors

        if isinstance(error, errors.UnavailableError | errors.DeadlineError | errors.OverloadedError):
            return ResourceError(
                f"{self._source} does not answer ({reason(error)}); embedded frames are kept: start the server and "
                "run the same command again"
            )
        if isinstance(error, errors.EncoderChangedError):
            return InputError(
                f"{self._source} changed its encoder during the run ({reason(error)}); run the command again"
            )
        if isinstance(error, errors.ServingError | ValueError):
            return InputError(f"{self._source}: {reason(error)}")
        return error
