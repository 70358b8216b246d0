"""The client's errors: one class for each way to react.

* ServingError
  - SupersededError    do nothing, because a newer frame of the same camera replaced this frame
  - DeadlineError      go on with the next frame, or allow more time
  - OverloadedError    send less, or later
  - UnavailableError   try again, or use another server
  - RequestError       correct the request
  - UnknownModelError  ask for a loaded model or version
  - EncoderChangedError  connect again, and retrain models that used the old encoder
  - DeniedError        pass the right token or certificate, or use TLS on both sides
  - ServerFailedError  read the server's log
"""

from __future__ import annotations

import re
from typing import Any

import grpc


class ServingError(Exception):
    """Base of all errors of the client."""


class SupersededError(ServingError):
    """A newer frame of the same robot and camera replaced this frame."""


class DeadlineError(ServingError, TimeoutError):
    """No reply came by the deadline, or the server saw that it could not meet the deadline."""


class OverloadedError(ServingError):
    """The server is at a limit (its queue is full, for example), or shared memory is full."""


class UnavailableError(ServingError, ConnectionError):
    """The server cannot be reached, or is shutting down."""


class RequestError(ServingError, ValueError):
    """The request or an argument cannot be used."""


class UnknownModelError(ServingError, LookupError):
    """The model or version is not loaded."""


class EncoderChangedError(ServingError):
    """The pinned encoder is no longer served; embeddings of another encoder are not comparable."""


class DeniedError(ServingError, PermissionError):
    """The token or certificate is missing or wrong, or only one side speaks TLS."""


class ServerFailedError(ServingError):
    """The server had an internal error in this call."""


_BY_STATUS: dict[str, type[ServingError]] = {
    "ABORTED": SupersededError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    "UNAVAILABLE": UnavailableError,
    "CANCELLED": UnavailableError,
    "INVALID_ARGUMENT": RequestError,
    "NOT_FOUND": UnknownModelError,
    "FAILED_PRECONDITION": EncoderChangedError,
    "UNAUTHENTICATED": DeniedError,
    "PERMISSION_DENIED": DeniedError,
}

# This is grpc's text for a request that is larger than the server's limit.
_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \((\d+) vs\. (\d+)\)")


def error_of(status: str, words: str) -> ServingError:
    """Return the client's error for a grpc status, given by its name; `words` is the error's message.

    >>> error_of("ABORTED", "replaced")
    SupersededError('replaced')
    """
    return _BY_STATUS.get(status, ServerFailedError)(words)


def from_grpc(error: Any) -> ServingError:
    """Convert an error that grpc raised into a ServingError."""
    code: grpc.StatusCode = error.code()
    words = error.details() or code.name
    if found := _TOO_LARGE.search(words):
        words = f"the message has {found[1]} bytes, the server takes {found[2]}; send fewer or smaller frames, or JPEGs"
    return error_of(code.name, words)
