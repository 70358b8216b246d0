"""Labels of media files, from a csv or from folder names.

The csv has a column `path`, optionally a column `split`, and columns of labels.
"""

from __future__ import annotations

import csv
import math
import posixpath
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robossl.common.suggest import suggest_name
from robossl.data.files import leaves_root
from robossl.data.manifest import Problem
from robossl.errors import InputError

NO_LABELS = Path("none")
# A numeric column with at most this many different values may hold classes, even if the csv has few rows.
MAX_CLASSES_OF_FEW = 20

_LABEL = frozenset({"label", "labels", "class", "category", "target"})
_TIME = frozenset({"time", "timestamp", "datetime", "duration", "seconds", "sec", "secs", "ms"})
_SIZE = frozenset({"width", "height", "depth", "w", "h", "size", "bytes", "kb", "mb", "length", "len"})
_COUNT = frozenset({"frame", "frames", "num", "n", "count", "total", "index", "idx", "row"})
_RATE = frozenset({"fps", "rate", "hz", "bitrate"})
_PLACE = frozenset({"start", "end", "begin", "stop", "offset", "x", "y", "z"})
_RESULT = frozenset({"score", "loss", "reward", "return", "mean", "std", "min", "max"})
_MEASUREMENT = _SIZE | _COUNT | _RATE | _PLACE | _RESULT
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
    """The rows of a csv of labels, by normalised path of the media file. Without a csv there are no rows."""

    rows: dict[str, dict[str, str]]
    problems: tuple[Problem, ...] = ()
    columns: tuple[str, ...] = ()  # the label columns
    remarks: tuple[str, ...] = ()  # messages that say which columns are labels, and why others are not

    def split(self, path: str) -> str:
        """Return the split of a file; "" if the csv states no split."""
        return self.rows.get(path, {}).get("split", "")

    def labels(self, path: str) -> dict[str, str]:
        """Return the labels of a file; an empty dict if the csv does not list the file."""
        row = self.rows.get(path)
        return {} if row is None else {name: row[name] for name in self.columns}


def match_labels(
    root: Path, given: Path | None, files: Iterable[str], columns: Sequence[str] | None = None
) -> LabelTable:
    """Read the labels of `files` (paths relative to `root`) from the csv `given`, or from a csv in `root`.

    All columns of the csv `given` are labels, except `path` and `split`. In a csv found in `root`, columns that look
    like times or measurements are no labels either.

    Args:
        root: folder of the source.
        given: a csv; `NO_LABELS` for no labels; None to look for a csv in `root`.
        files: files of the source; the csv must list at least one of them.
        columns: names of the label columns. None: choose them as described above.

    Raises:
        InputError: the csv has no column `path`, cannot be read, lists none of the files or lacks one of `columns`; or
            `root` holds several possible csv files.
    """
    found = find_table(root, given)
    if found is None:
        if columns:
            raise InputError(f"--label-columns {' '.join(columns)} needs a csv; name it with --labels")
        return LabelTable({})
    path, table = found
    return _choose(path, _check(path, table, set(files)), columns, keep_all=given is not None)


def find_table(root: Path, given: Path | None) -> tuple[Path, LabelTable] | None:
    """Return the path and the rows of the csv of labels; None if there is no csv or no labels are wanted.

    Raises:
        InputError: the csv has no column `path` or cannot be read, or `root` holds several possible csv files.
    """
    if given is not None:
        return None if given == NO_LABELS else (given, _read(given))
    tables = {path: _read(path) for path in sorted(root.glob("*.csv")) if "path" in _header(path)}
    if len(tables) > 1:
        names = ", ".join(path.name for path in tables)
        raise InputError(
            f"{root} holds {len(tables)} csv files with a column 'path' ({names}); choose one with --labels, or none "
            "with --labels none"
        )
    return next(iter(tables.items()), None)


def _choose(path: Path, table: LabelTable, columns: Sequence[str] | None, *, keep_all: bool) -> LabelTable:
    """Choose which columns are labels, and add a remark for the user."""
    names = list(dict.fromkeys(name for row in table.rows.values() for name in row if name not in ("path", "split")))
    for name in columns or ():
        if name not in names:
            raise InputError(f"--label-columns: {suggest_name('column', name, names)} in {path}")
    if columns is not None:
        left_out = {name: "not chosen" for name in names if name not in columns}
    else:
        values = {name: [row[name] for row in table.rows.values() if row[name]] for name in names}
        left_out = {} if keep_all else {name: why for name in names if (why := reason_not_label(name, values[name]))}
    kept = tuple(name for name in names if name not in left_out)
    remark = f"labels from {path.name}: {', '.join(kept) or 'none'}"
    if left_out:
        remark += f"; not labels: {', '.join(f'{name} ({why})' for name, why in left_out.items())}"
    remark += "; change this with --label-columns NAME ... or --labels none"
    return replace(table, columns=kept, remarks=(remark,) if names else ())


def reason_not_label(name: str, values: Sequence[str]) -> str:
    """Return why a column does not look like a label; "" if it does.

    >>> reason_not_label("frame_count", ["88", "59"]), reason_not_label("grip", ["0.25", "1.5"])
    ('a measurement', 'fractions')
    >>> reason_not_label("camera", ["20103212"])
    ''
    """
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    if _LABEL.intersection(words):
        return ""
    if _TIME.intersection(words):
        return "a time"
    numbers = [_number(value) for value in values]
    if not numbers or any(number is None for number in numbers):
        return ""
    if _MEASUREMENT.intersection(words):
        return "a measurement"
    if any(number != round(number) for number in numbers if number is not None and math.isfinite(number)):
        return "fractions"
    num_different = len(set(numbers))
    return "a number of each row" if num_different > max(MAX_CLASSES_OF_FEW, len(numbers) / 2) else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def split_name(word: str) -> str:
    """Return the split that a folder name stands for, such as train for "training"; "" if it stands for no split."""
    return _SPLITS.get(word.lower(), "")


def label_from_path(path: str) -> tuple[str, dict[str, str]]:
    """Return the split and the label of an image, taken from its folders: `train/cup/a.jpg` is a cup in split train."""
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
                    # Interning saves memory, because labels repeat a lot.
                    rows[name] = {key: sys.intern(value) for key, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"labels {path} cannot be read: {error}") from None
    return LabelTable(rows, tuple(problems))
