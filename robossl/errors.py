"""The errors, one class for each thing that a caller can do.

* RobosslError
  x InputError      fix what was passed (argument, configuration, data) and call again; exit code 2
  x ResourceError   nothing is lost: make room (disk, memory, port) and run the same command again; exit code 1
"""

from __future__ import annotations


class RobosslError(Exception):
    """Base class of the errors that this package raises on purpose; `exit_code` is that of the command line."""

    exit_code = 1


class InputError(RobosslError, ValueError):
    """The input cannot be used; the message says what was got, what is allowed and what to do next."""

    exit_code = 2


class ResourceError(RobosslError, OSError):
    """The machine ran out of disk, memory or another resource; the work so far is kept."""


def reason(error: BaseException) -> str:
    """Return the first line of an error of another library, to quote it in a message of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
