"""Relay: a program that turns each line of its standard input into a JSON object of the log.

The relay is a process and not a thread, so that no line is lost if a native library ends the server or if Python is
busy. The relay uses only the standard library, so it starts in 10 ms.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE_BYTES = 2**14  # maximum length of a line; longer lines are split


def format_time(seconds: float) -> str:
    """Format a time (Unix seconds) for the log.

    >>> format_time(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def main() -> None:
    """Write lines as JSON until the server, and every process that shares its standard error, has ended."""
    # The relay ignores signals that may be sent to all processes of a service, because it must outlive the server.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    is_writing = True
    while raw := sys.stdin.buffer.readline(_LINE_BYTES):
        line = _COLOUR.sub("", raw.decode("utf-8", "replace")).strip()
        if not line or not is_writing:
            continue
        row = {"time": format_time(time.time()), "level": "warning", "event": "a library's line", "line": line}
        try:
            sys.stdout.buffer.write(f"{json.dumps(row)}\n".encode())
            sys.stdout.buffer.flush()
        except OSError:  # nobody reads the log, but go on reading lines, so that the pipe does not fill
            is_writing = False


if __name__ == "__main__":
    main()
