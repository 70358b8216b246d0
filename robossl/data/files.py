"""Find the files of a source that are safe to read: inside the source's folder, not empty, not a Git-LFS pointer."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Collection
from pathlib import Path

from robossl.data.manifest import Problem

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi"})
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

OUTSIDE = "path leaves the source folder"
NOT_UTF8 = "name is not UTF-8; rename it"

_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
_LICENCE_LINE = re.compile(r"^\W*licen[cs]e\W*:\s*(\S.*)$", re.IGNORECASE | re.MULTILINE)


def find_files(root: Path, suffixes: Collection[str]) -> tuple[list[str], list[Problem]]:
    """Find the files under `root` that end in one of `suffixes`.

    Return their sorted relative paths, and the files and folders that were left out, each with the reason (such as an
    empty file, or a link that leaves `root`). Paths use "/" as the separator. Files and folders whose name starts with
    "." are ignored.
    """
    found: list[str] = []
    refused: list[Problem] = []

    def closed(error: OSError) -> None:
        folder = Path(error.filename).relative_to(root).as_posix()
        refused.append(Problem(escape_name(folder), f"folder {_closed(error)}"))

    for folder, folders, names in os.walk(root, onerror=closed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        refused += [
            Problem(_relative(root, folder, name), "symlink to a folder outside the source")
            for name in folders
            if (Path(folder) / name).is_symlink() and not is_inside(root, Path(folder) / name)
        ]
        for name in names:
            if not _is_media(name, suffixes):
                continue
            relative, path = _relative(root, folder, name), Path(folder) / name
            leaves = path.is_symlink() and not is_inside(root, path)
            reason = NOT_UTF8 if not is_utf8(relative) else OUTSIDE if leaves else _unreadable(path)
            if reason:
                refused.append(Problem(escape_name(relative), reason))
            else:
                found.append(relative)
    return sorted(found), sorted(refused, key=lambda problem: problem.path)


def any_file(root: Path, suffixes: Collection[str]) -> bool:
    """Return whether a file under `root` ends in one of `suffixes`. No file is opened."""
    return any(
        _is_media(name, suffixes)
        for folder, _, names in os.walk(root)
        for name in names
        if not any(part.startswith(".") for part in Path(folder).relative_to(root).parts)
    )


def unreadable_reason(root: Path, relative: str) -> str:
    """Return why the file `root/relative` must not or cannot be read; "" if it may be read."""
    path = root / relative
    return OUTSIDE if leaves_root(relative) or not is_inside(root, path) else _unreadable(path)


def _is_media(name: str, suffixes: Collection[str]) -> bool:
    return not name.startswith(".") and name.lower().endswith(tuple(suffixes))


def _unreadable(path: Path) -> str:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return "not a regular file"
        with open(path, "rb") as file:
            head = file.read(len(_LFS_HEAD))
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return _closed(error)
    if status.st_size == 0:
        return "empty file (0 bytes)"
    if head == _LFS_HEAD:
        return "Git-LFS pointer instead of the file; fetch it with: git lfs pull"
    return ""


def _closed(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def is_utf8(name: str) -> bool:
    """Return whether a file name is valid UTF-8.

    If it is not, the name contains surrogates, which is how Python represents the invalid bytes.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def escape_name(name: str) -> str:
    """Return the name with an escape (backslash and hex digits) for every byte that is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def leaves_root(relative: str) -> bool:
    """Return whether a relative path from a csv, a json or an archive points outside its folder."""
    normal = posixpath.normpath(relative.replace("\\", "/"))
    return normal.startswith(("/", "../")) or normal == ".." or bool(re.match(r"[A-Za-z]:", normal))


def is_inside(root: Path, path: Path) -> bool:
    """Return whether `path` is under `root` after following symbolic links."""
    return path.resolve().is_relative_to(root.resolve())


def fingerprint(*paths: Path) -> str:
    """Return the sizes and modification times of files as text, which changes if a file is replaced or edited."""
    return ",".join(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in (path.stat() for path in paths))


def stated_licence(root: Path) -> str:
    """Return the licence that a README or LICENSE file beside the data states, or "unknown"."""
    folder = root if root.is_dir() else root.parent
    for name in ("README.md", "SOURCE.md", "README.txt", "README"):
        match = _LICENCE_LINE.search(_head_of(folder / name))
        if match:
            return match[1].strip()[:400]
    for name in ("LICENSE", "LICENCE", "LICENSE.txt", "LICENSE.md"):
        lines = [line.strip() for line in _head_of(folder / name).splitlines() if line.strip()]
        if lines:
            return lines[0][:400]
    return "unknown"


def _head_of(path: Path) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(16384)
    except OSError:
        return ""


def _relative(root: Path, folder: str, name: str) -> str:
    return (Path(folder) / name).relative_to(root).as_posix()
