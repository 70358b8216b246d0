"""Shared memory of a client: a file in /dev/shm, for servers on the same host.

The owner holds a lock on its file, so that other processes can recognise and remove the files of killed owners. Process
ids would not show which owners were killed, because containers that share /dev/shm number their processes separately.
Python's multiprocessing.shared_memory is not used, because before Python 3.13 every process that attaches to the
memory also removes it when the process ends.
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
    """A file in shared memory; `close` removes it."""

    def __init__(self, size: int) -> None:
        # Import fcntl only here, because Windows does not have it, and the rest of the client works there.
        import fcntl

        _sweep()
        self.size = size
        self.name = f"robossl-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = FOLDER / self.name
        # The file gets its final name only when it is locked, so that no other process removes it.
        aside = FOLDER / f".{self.name}"
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            aside.rename(self._path)
            # Reserve the memory now. If /dev/shm is full, this raises an error; a later write would end in SIGBUS.
            os.posix_fallocate(descriptor, 0, size)
            # mmap duplicates the descriptor, so the file stays locked after `os.close` below.
            self._map = mmap.mmap(descriptor, size)
        except OSError:
            for path in (aside, self._path):
                path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    @property
    def key(self) -> str:
        """The key that a client sends to a server to register the file."""
        return f"/{self.name}"

    @property
    def is_removed(self) -> bool:
        """Whether the file was removed."""
        return not self._path.exists()

    def write(self, raw: bytes | memoryview, *, at: int = 0) -> None:
        """Write bytes to the file at an offset."""
        self._map[at : at + len(raw)] = raw

    def close(self) -> None:
        """Remove the file; a server that has it open then refuses requests that use it."""
        self._map.close()
        self._path.unlink(missing_ok=True)


def _sweep() -> None:
    """Remove the files of killed processes."""
    for path in FOLDER.glob("robossl-*-*"):
        if _OURS.fullmatch(path.name):
            # This fails if the file is in use, belongs to another user, or is already removed.
            with contextlib.suppress(OSError):
                _remove_unused(path)


def _remove_unused(path: Path) -> None:
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
