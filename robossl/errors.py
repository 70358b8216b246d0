"""The errors of this package, one class for each thing that a caller can do about them.

* RobosslError
  x InputError      fix what was passed (argument, configuration, data) and call again; exit code 2
  x ResourceError   no work is lost; free the resource (disk, memory, port) and run the command again; exit code 1
  x RunInterrupted  no work is lost; a signal stopped a run, which was saved; go on with `resume`; exit code 143
"""

from __future__ import annotations


class RobosslError(Exception):
    """Base class of the errors that this package raises on purpose; the command line exits with `exit_code`."""

    exit_code = 1


class InputError(RobosslError, ValueError):
    """The input cannot be used. The message says what the input was, what is allowed and what to do next."""

    exit_code = 2


class ResourceError(RobosslError, OSError):
    """The machine ran out of disk, memory or another resource; the work so far is kept."""


class RunInterrupted(RobosslError):
    """SIGTERM or Ctrl-C stopped `pretrain`; the run was saved first, and `resume` goes on with it."""

    exit_code = 143  # 128 + SIGTERM


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, so that a message of this package can quote it."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
