"""The errors, one for each thing a caller can do.

* RobosslError
  x InputError      fix what was passed (argument, configuration, data) and call again; exit code 2
  x ResourceError   nothing is lost: make room (disk, memory, port) and run the same command again; exit code 1
"""

from __future__ import annotations


class RobosslError(Exception):
    """Base of all errors this package raises on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(RobosslError, ValueError):
    """What was passed cannot be used; the message says what was got, what is allowed and what to do."""

    exit_code = 2


class ResourceError(RobosslError, OSError):
    """The machine ran out of something; the work so far is kept."""


def reason(error: BaseException) -> str:
    """The first line of another library's error, for one of ours to quote."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
