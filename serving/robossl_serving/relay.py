"""Relay: a program of its own that makes each line on its standard input a JSON object of the log.

It is no thread of the server, so that the last words of a native library that ends the process are not lost, nor lines
that come while Python is busy. It needs nothing but Python's own modules, and starts in a hundredth of a second.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LINE_BYTES = 2**14  # a longer line becomes several


def format_time(seconds: float) -> str:
    """Spell a time as the log does.

    >>> format_time(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def main() -> None:
    """Write JSON until the server, and whoever shares its standard error, has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # to all of its group, but it is to outlive it
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
        except OSError:  # nobody reads the log: what comes is still taken off the pipe
            is_writing = False


if __name__ == "__main__":
    main()
