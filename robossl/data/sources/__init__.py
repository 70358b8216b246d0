"""The foreign formats, by name. Detection asks them in this order; a new format is one file and one line."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from robossl.data.source import Source
from robossl.errors import InputError
from robossl.names import unknown

SOURCES: dict[str, str] = {
    "lerobot": "robossl.data.sources.lerobot:LeRobotSource",
    "mp4": "robossl.data.sources.mp4:Mp4Source",
    "parquet": "robossl.data.sources.parquet:ParquetSource",
    "tar": "robossl.data.sources.tar:TarSource",
    "images": "robossl.data.sources.images:ImageFolderSource",
}


def source_class(name: str) -> type[Source]:
    """The class of a format.

    Raises:
        InputError: no such format.
    """
    if name not in SOURCES:
        raise InputError(unknown("format", name, ["auto", *SOURCES]))
    module, _, attribute = SOURCES[name].partition(":")
    found: type[Source] = vars(import_module(module))[attribute]
    return found


def detect_format(root: Path) -> str:
    """The first format that accepts `root`.

    Raises:
        InputError: the source does not exist or holds nothing that is read.
    """
    if not root.exists():
        raise InputError(f"source {root} does not exist")
    for name in SOURCES:
        if source_class(name).accepts(root):
            return name
    raise InputError(f"{root} holds none of the formats {', '.join(SOURCES)} (empty folder?)")
