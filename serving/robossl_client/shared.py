"""Shared memory of a client: a file of its own in /dev/shm, for servers on the same host.

Who has one holds a lock on it, so that others can tell what a killed process left from what is in use: process ids
would not do, since containers that share /dev/shm have ids of their own.
Not multiprocessing.shared_memory: on Python before 3.13 a process that merely attached removes it when it ends.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
from pathlib import Path

FOLDER = Path("/dev/shm")
_OURS = re.compile(r"robossl-\d+-[0-9a-f]{8}")


class SharedFile:
    """A file in shared memory, removed when closed."""

    def __init__(self, size: int) -> None:
        import fcntl  # not on Windows, where the rest of the client works

        _sweep()
        self.size = size
        self.name = f"robossl-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = FOLDER / self.name
        aside = FOLDER / f".{self.name}"  # it gets its name when it is locked, lest it be swept
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            aside.rename(self._path)
            os.posix_fallocate(descriptor, 0, size)  # a full /dev/shm is an error here, not a SIGBUS later
            self._map = mmap.mmap(descriptor, size)  # it has a duplicate of the descriptor, which keeps the lock
        except OSError:
            for path in (aside, self._path):
                path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    @property
    def key(self) -> str:
        """What the server is told."""
        return f"/{self.name}"

    @property
    def is_removed(self) -> bool:
        """Whether someone has removed the file."""
        return not self._path.exists()

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
        if _OURS.fullmatch(path.name):
            with contextlib.suppress(OSError):  # in use, another user's, or gone meanwhile
                _remove_unused(path)


def _remove_unused(path: Path) -> None:
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
