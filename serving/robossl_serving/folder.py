"""Folder: which versions of which models lie on disk, and whether one is still what it was."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[tuple[int, int] | None, ...]  # time and size of each file; None: it is not there


def scan(root: Path) -> dict[str, list[int]]:
    """Version numbers by model name, as found on disk, in order."""
    found: dict[str, list[int]] = {}
    for model in sorted(root.glob("*/*/model.onnx")):
        name, version = model.parts[-3:-1]
        if version.isdecimal() and not name.startswith("."):
            found.setdefault(name, []).append(int(version))
    return {name: sorted(versions) for name, versions in found.items()}


def stamp_of(version: Path) -> Stamp:
    """What changes when the files of a version folder do."""
    return tuple(map(_stamp, (version / "model.onnx", version / "card.json", version.parent / "config.pbtxt")))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
