"""Use an encoder on a server, `grpc://host:port/model`. Errors of the gRPC client become errors of this package."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from robossl_client.card import EncoderCard

from robossl.common.paths import StrPath
from robossl.common.plugins import ENCODERS
from robossl.encoders.credentials import read_credentials
from robossl.encoders.inference import check_array, checked_state, describe
from robossl.errors import InputError, ResourceError, reason

MESSAGE_BYTES = 16 * 2**20  # maximum size of the pixels in one call; half of what servers accept by default
DEADLINE_MS = 60_000.0  # maximum time of one call; until then, a call to an unavailable server is retried


class ServedEncoder:
    """A connection to one encoder of a server. If the server replaces this encoder, the next call raises an error.

    Args:
        source: grpc://host:port/model; the model may be left out if the server has only one.
        choose: Function that takes the encoder's card (its description) and returns the outputs to ask for.
        token: File with the token of the server.
        ca: PEM file of the authority that signed the certificate of the server; it turns encryption on.
        deadline_ms: Maximum time of a call in milliseconds.

    Raises:
        InputError: there is no such address, model, output or file, or the server wants a different token.
        ResourceError: no server answers.
    """

    def __init__(
        self,
        source: str,
        choose: Callable[[EncoderCard], Sequence[str]],
        *,
        token: StrPath | None = None,
        ca: StrPath | None = None,
        deadline_ms: float = DEADLINE_MS,
    ) -> None:
        address, model = split_address(source)
        secrets = read_credentials(None if token is None else Path(token), None if ca is None else Path(ca))
        connect = partial(
            pkgutil.resolve_name(ENCODERS["grpc"]),
            address,
            model=model or None,
            **secrets,
            deadline_ms=deadline_ms,
            connect_ms=min(deadline_ms, 10_000.0),
        )
        self._source = source
        try:
            with connect() as asked:
                self.card: EncoderCard = asked.card
            self._outputs = tuple(choose(self.card))
            self._client = connect(outputs=self._outputs)
        except Exception as error:
            raise self._translate(error) from error

    def __repr__(self) -> str:
        return f"ServedEncoder({self._source}, {describe(self.card, self._outputs)})"

    def __call__(
        self, frames: UInt8[ndarray, "b h w 3"], state: Float32[ndarray, "b v"] | None = None
    ) -> dict[str, ndarray]:
        """Return the features of frames by output name; large batches are split into calls that the server accepts.

        Only the action of a policy needs a state.

        Raises:
            InputError: `frames` is no array, the server refuses them or the state, or it replaced the encoder.
            ResourceError: the server does not answer.
        """
        check_array(frames)
        state = checked_state(self.card, state, num_frames=len(frames), outputs=self._outputs)
        size = max(1, MESSAGE_BYTES // max(1, frames[:1].nbytes))
        try:
            parts = [
                self._client(frames[start : start + size], state=None if state is None else state[start : start + size])
                for start in range(0, len(frames), size)
            ]
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
            return InputError(f"{self._source} changed its encoder during the run ({reason(error)}); run it again")
        if isinstance(error, errors.ServingError | ValueError):
            return error if isinstance(error, InputError) else InputError(f"{self._source}: {reason(error)}")
        return error


def split_address(source: str) -> tuple[str, str]:
    """Split grpc://host:port/model into the server and the model, which may be empty.

    Raises:
        InputError: `source` is not an address of this form.
    """
    address = urlsplit(source)
    model = address.path.strip("/")
    if not address.netloc or "/" in model:
        raise InputError(f"{source!r} is not grpc://host:port/model; leave out the model if the server has only one")
    return address.netloc, model
