"""Writing that survives: one writer a folder, files replaced in one step, a full disk said in one line."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from robossl.errors import InputError, ResourceError

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
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Make a folder, and keep others who lock it out while the block runs; the lock ends with the process.

    Raises:
        InputError: the folder cannot be written to.
        ResourceError: another process has it, and `wait` is off.
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


def is_whole_array(path: Path) -> bool:
    """Whether an array in numpy's format lies there in full: a disk, or a hand, may cut what was written whole."""
    import numpy as np

    try:
        np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return True


def write_text(path: Path, text: str) -> None:
    """Write a whole text file and its folder: a reader sees the old one or the new one.

    Raises:
        InputError: the path is a folder's, or nothing can be written there.
        ResourceError: the disk is full.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        with full_disk_said(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                aside.write_text(text, encoding="utf-8")
    except ResourceError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose another place") from error


def check_out(out: Path | None, *, option: str = "--out") -> None:
    """Check that a file can be written, before the work whose result it is to hold; its folder is made.

    Raises:
        InputError: it is a folder, or its folder cannot be written to.
    """
    if out is None:
        return
    if out.is_dir():
        raise InputError(f"{option} must be a file, got the folder {out}; name a file in it")
    check_folder(out.parent, option=option)


def check_folder(folder: Path, *, option: str) -> None:
    """Make a folder and write to it, before work that would be lost; `option` is what names another.

    Raises:
        InputError: that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()  # root may write anywhere, but not on a read-only disk
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another {option}") from None


def sync(path: Path) -> None:
    """Make a file's contents, or the renames inside a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def share(path: Path) -> None:
    """Let those read a file who may read its folder: safetensors writes for the owner alone, whatever the umask."""
    path.chmod(path.parent.stat().st_mode & 0o666)
