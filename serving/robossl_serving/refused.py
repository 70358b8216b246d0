"""RefusedError: a call that is not served, with the grpc status and the message for its client."""

from __future__ import annotations

import logging

import grpc

_log = logging.getLogger("robossl.serving")


class RefusedError(Exception):
    """A refused call; the message is sent to the client, so it must not contain a path or an internal error."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def bad_request(message: str) -> RefusedError:
    """Return the error for a request that can never be served as it was sent."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


def shutting_down_error() -> RefusedError:
    """Return the error for a call that arrives while the server shuts down."""
    return RefusedError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down; connect again")


def to_refused(error: Exception) -> RefusedError:
    """Return an error that may be shown to the client; log an unexpected error and hide its details."""
    if isinstance(error, RefusedError):
        return error
    _log.error("a call failed unexpectedly; its client got INTERNAL", exc_info=error)
    return RefusedError(grpc.StatusCode.INTERNAL, "the server failed on this call; its log says why")
