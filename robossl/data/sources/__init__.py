"""SOURCES: the formats that can be ingested, by name. Detection tries them in this order, plugins last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robossl.common.plugins import Registry, code_name, describe_error, takes
from robossl.data.source import Source
from robossl.errors import InputError


def _check(found: Any) -> str:
    methods = [getattr(found, name, None) for name in ("accepts", "listing", "frames")]
    if not isinstance(found, type) or not all(map(callable, methods)):
        return "must be a class with accepts, listing and frames (robossl.data.source.Source)"
    if not takes(found, "root") or not takes(found, "root", "labels", "options"):
        return "must have __init__(self, root, labels=None, options=None)"
    return "" if takes(found.accepts, "root") else "must have a static method accepts(root)"  # type: ignore[attr-defined]


SOURCES = Registry(
    "format",
    group="robossl.sources",
    check=_check,
    built_in={
        "lerobot": "robossl.data.sources.lerobot:LeRobotSource",
        "mp4": "robossl.data.sources.mp4:Mp4Source",
        "parquet": "robossl.data.sources.parquet:ParquetSource",
        "webdataset": "robossl.data.sources.webdataset:WebDatasetSource",
        "tar": "robossl.data.sources.tar:TarSource",
        "hdf5": "robossl.data.sources.hdf5:Hdf5Source",
        "zarr": "robossl.data.sources.zarr:ZarrSource",
        "mcap": "robossl.data.sources.mcap:McapSource",
        "rosbag": "robossl.data.sources.rosbag:RosbagSource",
        "rlds": "robossl.data.sources.rlds:RldsSource",
        "images": "robossl.data.sources.images:ImageFolderSource",
    },
)


def source_class(name: str) -> type[Source]:
    """Return the class that reads a format.

    Raises:
        InputError: there is no such format, or it comes from a plugin that cannot be used.
    """
    found: type[Source] = SOURCES.resolve(name)
    return found


def detect_format(root: Path) -> str:
    """Return the first format that accepts `root`.

    Raises:
        InputError: the source does not exist, no format accepts it, or the method `accepts` of a format
            raises an error.
    """
    if not root.exists():
        raise InputError(f"source {root} does not exist; name a folder or file with videos or images")
    for name in SOURCES.usable():
        found = source_class(name)
        try:
            accepted = found.accepts(root)
        except InputError:
            raise
        except Exception as error:  # a plugin may raise anything
            raise InputError(
                f"{code_name(found)}.accepts() failed for {root} ({describe_error(error)}); mend it, or name the format"
            ) from error
        if accepted:
            return name
    is_empty = root.is_dir() and not any(root.iterdir())
    hint = " (empty folder?)" if is_empty else "; name a source of your own with --format MODULE:ATTRIBUTE"
    raise InputError(f"{root} holds none of the formats {', '.join(SOURCES)}{hint}")
