"""Write files durably: lock folders, replace files atomically, report a full disk in one line."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robossl.errors import InputError, ResourceError

_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def raise_disk_full(folder: Path) -> Iterator[None]:
    """Turn the system's error for a full disk, a quota or a file size limit into an error of this package.

    Raises:
        ResourceError: the disk is full, or a quota or a file size limit is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise ResourceError(f"disk full while writing {folder}; make room and run the same command again") from None
        raise


@contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Make a folder and hold its lock while the `with` block runs.

    The system frees the lock if the process is killed. `what` names the kind of writer in messages, such as "run".
    With `wait`, wait until the lock is free.

    Raises:
        InputError: the folder cannot be written to.
        ResourceError: another process holds the lock, and `wait` is false.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise ResourceError(f"another {what} is writing to {folder}; wait for it to end") from None
            print(f"another {what} is writing to {folder}; this one goes on when it ends", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` at the end of the block, or remove it after an error."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def is_whole_array(path: Path) -> bool:
    """Return whether a file holds a complete numpy array. A file may have been cut short after it was written."""
    import numpy as np

    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; make its folder if needed.

    Raises:
        InputError: the path is a folder, or nothing can be written there.
        ResourceError: the disk is full.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        with raise_disk_full(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as aside:
                aside.write_text(text, encoding="utf-8")
    except ResourceError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error


def check_out(out: Path | None, *, option: str = "--out") -> None:
    """Check that an output file can be written, before the work starts; make its folder if needed.

    If `out` is None, there is nothing to check.

    Raises:
        InputError: the path is a folder, or its folder cannot be written to.
    """
    if out is None:
        return
    if out.is_dir():
        raise InputError(f"{option} must be a file, got the folder {out}; name a file in it")
    check_folder(out.parent, option=option)


def check_folder(folder: Path, *, option: str) -> None:
    """Make a folder and check that files can be written to it. Errors name `option`, an option of the command line.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits do not show whether the disk is read-only, so write a file.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another {option}") from None


def sync(path: Path) -> None:
    """Flush a file to disk; for a folder, flush the renames of its files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(path: Path) -> None:
    """Give a file the read and write permissions of its folder.

    This is needed because safetensors writes files that only their owner can read.
    """
    path.chmod(path.parent.stat().st_mode & 0o666)
