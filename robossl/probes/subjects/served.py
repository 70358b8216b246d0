"""An encoder that a server has, `grpc://host:port/model`: what is probed is what robots get."""

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
from robossl.plugins import ENCODERS
from robossl.probes.subjects.ours import from_encode
from robossl.probes.subjects.probed import Output, Probed, same_outputs

MESSAGE_BYTES = 16 * 2**20  # of pixels in one call: half of what servers take by default
DEADLINE_MS = 60_000.0  # of one call; while the server is away it is tried again until then


def open_served(
    source: str,
    *,
    outputs: Sequence[Output],
    token: Path | None = None,
    ca: Path | None = None,
    deadline_ms: float = DEADLINE_MS,
) -> Probed:
    """Connect to a server; its encoder is pinned, so that another one in its place is an error.

    Args:
        source: grpc://host:port/model.
        outputs: What is wanted of it.
        token: File with the server's token.
        ca: PEM file of the authority that signed the server's certificate; the connection is encrypted then.
        deadline_ms: How long a call may take.

    Raises:
        InputError: no such address, model, output or file, or the server wants another token.
        ResourceError: no server answers.
    """
    address, model = address_of(source)
    options = {
        "model": model or None,
        **access(token, ca),
        "deadline_ms": deadline_ms,
        "connect_ms": min(deadline_ms, 10_000.0),
    }
    served = ServedEncode(source, partial(pkgutil.resolve_name(ENCODERS["grpc"]), address, **options), outputs)
    return from_encode(served, source, kind="grpc", outputs=outputs)


def address_of(source: str) -> tuple[str, str]:
    """Split grpc://host:port/model into the server and the model, which may be empty.

    Raises:
        InputError: no such address.
    """
    address = urlsplit(source)
    model = address.path.strip("/")
    if not address.netloc or "/" in model:
        raise InputError(f"{source!r} is not grpc://host:port/model; the model may be left out where there is one")
    return address.netloc, model


class ServedEncode:
    """A client of a server as an `Encode`, its errors as ours."""

    def __init__(self, source: str, connect: Callable[..., Any], outputs: Sequence[Output]) -> None:
        self._source = source
        try:
            with connect() as asked:
                card: EncoderCard = asked.card
            self._client = connect(outputs=same_outputs(outputs, card.outputs))
        except Exception as error:
            raise self._ours(error) from error
        self.card = card

    def __call__(self, frames: UInt8[ndarray, "b h w 3"]) -> dict[str, ndarray]:
        """Features of frames, in calls that the server takes."""
        size = max(1, MESSAGE_BYTES // max(1, frames[:1].nbytes))
        try:
            parts = [self._client(frames[start : start + size]) for start in range(0, len(frames), size)]
        except Exception as error:
            raise self._ours(error) from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _ours(self, error: Exception) -> Exception:
        from robossl_client import errors

        if isinstance(error, errors.UnavailableError | errors.DeadlineError | errors.OverloadedError):
            return ResourceError(
                f"{self._source} does not answer ({reason(error)}); what is embedded is kept, so start the server and "
                "run the same command again"
            )
        if isinstance(error, errors.EncoderChangedError):
            return InputError(
                f"{self._source} changed its encoder while it was probed ({reason(error)}); probe it again"
            )
        if isinstance(error, errors.ServingError | ValueError):
            return InputError(f"{self._source}: {reason(error)}")
        return error
