"""Labels of media files: from a csv (column `path`, optional `split`, the rest are labels) or from folder names."""

from __future__ import annotations

import csv
import posixpath
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from robossl.data.files import leaves_root
from robossl.data.manifest import Problem
from robossl.errors import InputError

_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True, slots=True)
class LabelTable:
    """Rows by normalised path; empty when there is no csv."""

    rows: dict[str, dict[str, str]]
    problems: tuple[Problem, ...] = ()

    def split(self, path: str) -> str:
        """The split of a file, "" when the csv names none."""
        return self.rows.get(path, {}).get("split", "")

    def labels(self, path: str) -> dict[str, str]:
        """The labels of a file, empty when the csv does not list it."""
        return {name: value for name, value in self.rows.get(path, {}).items() if name not in ("path", "split")}


def match_labels(root: Path, given: Path | None, files: Iterable[str]) -> LabelTable:
    """Read the labels of `files` (paths relative to `root`) from `given`, or from the csv that lies in `root`.

    Raises:
        InputError: the csv has no column `path`, cannot be read, or names none of the files; or several could be meant.
    """
    known = set(files)
    if given is not None:
        return _check(given, _read(given), known)
    tables = {path: _read(path) for path in sorted(root.glob("*.csv")) if "path" in _header(path)}
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise InputError(
            f"{root} holds {len(tables)} csv files with a column 'path' ({names}); choose one with --labels"
        )
    for path, table in tables.items():
        return _check(path, table, known)
    return LabelTable({})


def split_name(word: str) -> str:
    """The split a folder or file name stands for, "" for any other word."""
    return _SPLITS.get(word.lower(), "")


def label_from_path(path: str) -> tuple[str, dict[str, str]]:
    """Split and label of an image by its folders: `train/cup/a.jpg` is a cup of the train split."""
    folders = path.split("/")[:-1]
    split = split_name(folders[0]) if folders else ""
    label = sys.intern("/".join(folders[1:] if split else folders))
    return split, {"label": label} if label else {}


def _check(path: Path, table: LabelTable, known: set[str]) -> LabelTable:
    if known and not known & table.rows.keys():
        first = next(iter(table.rows), "nothing")
        raise InputError(
            f"labels {path} match none of the {len(known)} files: its first row names {first!r}, the first file is "
            f"{min(known)!r}; column 'path' must be relative to the source"
        )
    return table


def _header(path: Path) -> list[str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


def _read(path: Path) -> LabelTable:
    rows: dict[str, dict[str, str]] = {}
    problems: list[Problem] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            if "path" not in (reader.fieldnames or ()):
                raise InputError(
                    f"labels {path} need a column 'path', got {', '.join(reader.fieldnames or ()) or 'nothing'}"
                )
            for row in reader:
                row.pop("", None)
                name = posixpath.normpath(row["path"])
                if leaves_root(name):
                    problems.append(Problem(row["path"], f"{path.name}: path leaves the source folder"))
                elif name in rows:
                    problems.append(Problem(name, f"{path.name}: listed twice, the first row counts"))
                else:
                    rows[name] = {key: sys.intern(value) for key, value in row.items()}  # labels repeat a lot
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels {path} cannot be read: {error}") from None
    return LabelTable(rows, tuple(problems))
