"""Scan the models folder for versions, and detect changed files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from robossl.encoders.onnx_session import read_card
from robossl.errors import InputError

FileStamp = tuple[tuple[int, int] | None, ...]  # modification time and size of each file; None if missing


def scan(root: Path) -> dict[str, list[int]]:
    """Return the version numbers on disk, in ascending order, by model name."""
    found: dict[str, list[int]] = {}
    for model in sorted(root.glob("*/*/model.onnx")):
        name, version = model.parts[-3:-1]
        if version.isdecimal() and not name.startswith("."):
            found.setdefault(name, []).append(int(version))
    return {name: sorted(versions) for name, versions in found.items()}


def artefacts(model: Path, versions: Iterable[int]) -> dict[int, str | None]:
    """Return the sha256 of each version's model.onnx, read from its card; None if the card cannot be read."""
    return {version: _artefact(model / str(version) / "card.json") for version in versions}


def _artefact(card: Path) -> str | None:
    return _read_artefact(card, _stamp(card))


@lru_cache(maxsize=4096)
def _read_artefact(card: Path, _: tuple[int, int] | None) -> str | None:
    try:
        return read_card(card).model_sha256
    except InputError:
        return None


def read_stamp(version: Path) -> FileStamp:
    """Return a stamp that changes when the files of a version folder, or the model's config.pbtxt, change."""
    return tuple(map(_stamp, (version / "model.onnx", version / "card.json", version.parent / "config.pbtxt")))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
