"""Shared memory of a client: a file of its own in /dev/shm, for servers on the same host.

Not multiprocessing.shared_memory: on Python before 3.13 a process that merely attached removes it when it ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
from pathlib import Path

FOLDER = Path("/dev/shm")


class Region:
    """A file in shared memory, removed when closed."""

    def __init__(self, size: int) -> None:
        _sweep()
        self.size = size
        self.name = f"robossl-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = FOLDER / self.name
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
            self._map = mmap.mmap(descriptor, size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)

    @property
    def key(self) -> str:
        """What the server is told."""
        return f"/{self.name}"

    def write(self, raw: bytes | memoryview, *, at: int = 0) -> None:
        """Put bytes at a place."""
        self._map[at : at + len(raw)] = raw

    def close(self) -> None:
        """Remove the file; a server that has it open says so to whoever asks for it."""
        self._map.close()
        self._path.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove what processes that were killed left behind."""
    for path in FOLDER.glob("robossl-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):  # another user's, or gone meanwhile
                path.unlink()
