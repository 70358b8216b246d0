"""Per-frame columns of LeRobot data files: find columns with rows of equal width, say why others are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from robossl.data.manifest import Problem
from robossl.data.source import Damaged
from robossl.data.sources.lerobot_meta import LeRobotMetadata

# A column is stored if at least this share of its rows has the same width.
# Episodes that contain rows of another width are refused.
MIN_SHARE = 0.9
# Number of data files to read for the widths. Reading all files of a large data set takes minutes.
NUM_SAMPLED = 16

_INFO = "meta/info.json"


def column_widths(
    root: Path, dataset: LeRobotMetadata, data_files: Sequence[str]
) -> tuple[dict[str, int], list[Problem]]:
    """Return the width (values per row) of each column to store; the keys are the names in the store.

    Also return a note for every column that is left out and for every correction.
    """
    sample = data_files[:: max(1, len(data_files) // NUM_SAMPLED)][:NUM_SAMPLED]
    found: dict[str, int] = {}
    notes: list[Problem] = []
    for name, column in dataset.columns.items():
        try:
            found[name], num_null = _width(root, column, sample)
        except Damaged as error:
            notes.append(Problem(_INFO, f"{column} {error}; not read"))
            continue
        if num_null:
            notes.append(Problem(_INFO, f"{column} is null in {num_null} rows of {sample[0]}; stored as nan there"))
        if found[name] != dataset.widths[name]:
            mismatch = f"{column} has {dataset.widths[name]} values by its shape, {found[name]} in {sample[0]}"
            notes.append(Problem(_INFO, mismatch))
    return found, notes


def _width(root: Path, column: str, files: Sequence[str]) -> tuple[int, int]:
    """Return the width of a column and the number of null rows in the first file.

    Raises:
        Damaged: in most files, the column is missing, not numeric, or has rows of different widths.
    """
    widths: list[int] = []
    reasons: list[str] = []
    num_null = 0
    for number, file in enumerate(files):
        try:
            table = pq.ParquetFile(root / file)
            if column not in table.schema_arrow.names or not is_numeric(table.schema_arrow.field(column).type):
                raise Damaged(f"is not a numeric column of {file}")
            rows = _rows(column, table.read([column])[column])
            widths.append(_common_width(rows, file))
            num_null = num_null if number else sum(row is None for row in rows)
        except (OSError, pa.ArrowException):
            continue  # the file is reported when its episodes are read
        except Damaged as error:
            reasons.append(str(error))
    if len(reasons) > len(widths):
        raise Damaged(reasons[0])
    if not widths:
        raise Damaged("cannot be read")
    return Counter(widths).most_common(1)[0][0], num_null


def _common_width(rows: Sequence[ndarray | None], file: str) -> int:
    counts = Counter(len(row) for row in rows if row is not None)
    if not counts:
        raise Damaged(f"is null in {file}")
    width, num_rows = counts.most_common(1)[0]
    if num_rows < MIN_SHARE * counts.total():
        raise Damaged(f"has rows of {min(counts)} to {max(counts)} values in {file}")
    if width == 0:
        raise Damaged(f"has no values in {file}")
    return width


def read_matrix(name: str, column: Any, width: int) -> Float32[ndarray, "n d"]:
    """Return the values of a column, one row per frame; a null row becomes nan.

    Raises:
        Damaged: a row has a different number of values.
    """
    rows = _rows(name, column)
    found = {len(row) for row in rows if row is not None}
    if len(found) > 1:
        raise Damaged(f"column {name} has rows of {min(found)} to {max(found)} values, expected {width}")
    if found and found != {width}:
        raise Damaged(f"column {name} has {found.pop()} values per row, but {width} in other episodes")
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if row is None else row for row in rows])


def is_numeric(type_: pa.DataType) -> bool:
    """Return whether a column holds numbers or lists of numbers."""
    while isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        type_ = type_.value_type
    return pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_boolean(type_)


def _rows(name: str, column: Any) -> list[Float32[ndarray, " d"] | None]:
    try:
        return [None if row is None else np.asarray(row, np.float32).ravel() for row in column.to_pylist()]
    except (ValueError, TypeError):
        raise Damaged(f"column {name} has rows that are not lists of numbers") from None
