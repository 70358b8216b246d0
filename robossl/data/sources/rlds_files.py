"""The files of RLDS data sets: which tfrecords belong to which data set, and which are missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robossl.data.files import escape_name, is_utf8, unreadable_reason
from robossl.data.manifest import Problem

# lift-train.tfrecord-00000-of-00008, or lift-train-00000-of-00008.tfrecord
_SHARD = re.compile(r"(.+)-([^-.]+)(?:\.tfrecord-(\d{5,})-of-(\d{5,})|-(\d{5,})-of-(\d{5,})\.tfrecord)")
_METADATA = frozenset({"features.json", "dataset_info.json"})
_NUM_NAMED = 3  # missing shards that are named


@dataclass(frozen=True, slots=True)
class RldsShard:
    """A tfrecord file, by its path under the root."""

    path: str
    name: str  # name of the data set
    split: str
    number: int
    count: int  # number of shards of this split


def parse_shard(path: str, name: str) -> RldsShard | None:
    """Return what the name of a file says of a shard; None if it is no tfrecord of a sharded data set."""
    match = _SHARD.fullmatch(name)
    if match is None:
        return None
    return RldsShard(path, match[1], match[2], int(match[3] or match[5]), int(match[4] or match[6]))


def holds_data_set(root: Path) -> bool:
    """Return whether a folder under `root` has a shard, or the metadata of tensorflow-datasets."""
    return any(set(names) >= _METADATA or any(parse_shard("", name) for name in names) for _, names in _walk(root))


def find_data_sets(root: Path, only: str | None, skipped: list[Problem]) -> dict[str, list[RldsShard]]:
    """Return the shards of each folder that holds a data set, by relative path; add what is left out to `skipped`.

    Args:
        root: folder to look in.
        only: name of the only file to read, in `root`; None for all.
        skipped: gets the files that cannot be read.
    """
    found: dict[str, list[RldsShard]] = {}
    for folder, names in _walk(root):
        relative = folder.relative_to(root).as_posix()
        shards = []
        for name in names if only is None else [only] if relative == "." else []:
            path = join_path(relative, name)
            shard = parse_shard(path, name)
            why = (
                ("name is not UTF-8; rename it" if not is_utf8(path) else unreadable_reason(root, path))
                if shard
                else ""
            )
            if why:
                skipped.append(Problem(escape_name(path), why))
            elif shard:
                shards.append(shard)
        if shards or (only is None and set(names) >= _METADATA):
            found[relative] = sorted(shards, key=lambda shard: (shard.name, shard.split, shard.number))
    return found


def missing_shards(folder: str, shards: Sequence[RldsShard]) -> list[Problem]:
    """Return a line for each split of which shards are missing."""
    have: dict[tuple[str, str, int], set[int]] = {}
    for shard in shards:
        have.setdefault((shard.name, shard.split, shard.count), set()).add(shard.number)
    found = []
    for (name, split, count), numbers in have.items():
        gone = [f"{number:05d}" for number in range(count) if number not in numbers]
        if gone:
            more = ", ..." if len(gone) > _NUM_NAMED else ""
            what = f"{len(gone)} of {count} shards are missing ({', '.join(gone[:_NUM_NAMED])}{more})"
            found.append(Problem(join_path(folder, f"{name}-{split}"), f"{what}; the rest is read"))
    return found


def stated_lengths(folder: Path) -> dict[tuple[str, int], int]:
    """Return the number of records of each shard, by split and number, if dataset_info.json states them."""
    try:
        info: dict[str, Any] = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        return {
            (str(split["name"]), number): int(length)
            for split in info.get("splits", ())
            for number, length in enumerate(split.get("shardLengths", ()))
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def explain_no_shard(folder: Path) -> str:
    """Return why a data set has no tfrecord."""
    try:
        kind = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8")).get("fileFormat", "tfrecord")
    except (OSError, ValueError, AttributeError):
        kind = "tfrecord"
    if kind == "tfrecord":
        return "holds no tfrecord, such as NAME-train.tfrecord-00000-of-00008; download the shards"
    return f"is stored as {kind}; only tfrecord is read: convert it with tfds convert_format --out_file_format tfrecord"


def join_path(folder: str, name: str) -> str:
    """Join relative paths, of which the first may be "."."""
    return name if folder in ("", ".") else f"{folder}/{name}"


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), sorted(names)
