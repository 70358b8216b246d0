"""Writing that survives: files replaced in one step, renames forced to disk, a full disk said in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robossl.errors import ResourceError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk, a quota or a file size limit inside the block into one line.

    Raises:
        ResourceError: there was no room to write.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceError(f"disk full while writing {folder}; make room and run the same command again") from None
        raise


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well and is removed when it does not."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file's contents, or the renames inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
