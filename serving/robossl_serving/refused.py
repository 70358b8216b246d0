"""Refused: a call that is not served, with the status and the words that its caller is told."""

from __future__ import annotations

import logging

import grpc

_log = logging.getLogger("robossl.serving")


class RefusedError(Exception):
    """The message is for the caller: it names no path and quotes no other error."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def bad_request(message: str) -> RefusedError:
    """What was sent cannot be used; sending it again will not help."""
    return RefusedError(grpc.StatusCode.INVALID_ARGUMENT, message)


def shutting_down_error() -> RefusedError:
    """Refuse a call because the server ends."""
    return RefusedError(grpc.StatusCode.UNAVAILABLE, "the server is shutting down; connect again")


def to_refused(error: Exception) -> RefusedError:
    """What a caller is told of an error: of one that nobody foresaw nothing, which goes to the log."""
    if isinstance(error, RefusedError):
        return error
    _log.error("a call failed", exc_info=error)
    return RefusedError(grpc.StatusCode.INTERNAL, "the server failed on this call; its log says why")
