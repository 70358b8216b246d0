"""The client's errors, one for each thing a caller can do.

* ServingError
  x SupersededError    nothing to do: a newer frame of the same camera took this one's place
  x DeadlineError      go on with the next frame, or allow more time
  x OverloadedError    send less, or later
  x UnavailableError   the server is not there (any more): try again, or use another
  x RequestError       fix what was sent
  x UnknownModelError  ask for a model or version that is loaded
  x EncoderChangedError  another encoder is served than the one pinned: connect anew, and retrain what used the old one
  x DeniedError        bring the right token or certificate, or give both sides TLS
  x ServerFailedError  read the server's log
"""

from __future__ import annotations

import re
from typing import Any

import grpc


class ServingError(Exception):
    """Base of all errors of the client."""


class SupersededError(ServingError):
    """A newer frame of this robot and camera took the place of this one."""


class DeadlineError(ServingError, TimeoutError):
    """No answer by the deadline, or the server saw that there could be none and did not try."""


class OverloadedError(ServingError):
    """More waits than the server takes."""


class UnavailableError(ServingError, ConnectionError):
    """The server is not reached, or is shutting down."""


class RequestError(ServingError, ValueError):
    """What was sent or asked cannot be used."""


class UnknownModelError(ServingError, LookupError):
    """The model or version is not loaded."""


class EncoderChangedError(ServingError):
    """The pinned encoder is not served any more; another one's embeddings are not comparable."""


class DeniedError(ServingError, PermissionError):
    """The token or certificate is missing or wrong, or only one side speaks TLS."""


class ServerFailedError(ServingError):
    """The server failed on this call."""


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

_TOO_LARGE = re.compile(r"SERVER: Received message larger than max \((\d+) vs\. (\d+)\)")  # in grpc's own words


def error_of(status: str, words: str) -> ServingError:
    """The error for a status, by its name in the protocol.

    >>> error_of("ABORTED", "replaced")
    SupersededError('replaced')
    """
    return _BY_STATUS.get(status, ServerFailedError)(words)


def from_grpc(error: Any) -> ServingError:
    """The error for one of grpc's."""
    code: grpc.StatusCode = error.code()
    words = error.details() or code.name
    if found := _TOO_LARGE.search(words):
        words = f"the message has {found[1]} bytes, the server takes {found[2]}; send fewer or smaller frames, or JPEGs"
    return error_of(code.name, words)
