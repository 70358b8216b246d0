"""Run the command line on a real terminal, 120 columns wide."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")  # colours and moves of the cursor


def on_a_terminal(argv: list[str]) -> tuple[int, str]:
    """The exit code, and everything that was shown, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    process = subprocess.Popen(
        [sys.executable, "-m", "robossl", *argv],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm", "OMP_NUM_THREADS": "1"},
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return process.wait(timeout=60), CONTROL.sub("", seen.decode()).replace("\r", "")
