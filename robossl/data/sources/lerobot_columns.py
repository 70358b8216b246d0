"""The per-frame columns of LeRobot data files: which are matrices of one width, and which are left out and why."""

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
from robossl.data.sources.lerobot_meta import Dataset

MOST = 0.9  # share of rows of one width that makes a column a matrix; an episode with another row is refused
NUM_SAMPLED = 16  # data files that are read for the widths; opening every file of a large data set takes minutes

_INFO = "meta/info.json"


def column_widths(root: Path, dataset: Dataset, data_files: Sequence[str]) -> tuple[dict[str, int], list[Problem]]:
    """Widths of the columns that can be stored, by name, and a note for each other one and each correction."""
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
            said = f"{column} has {dataset.widths[name]} values by its shape, {found[name]} in {sample[0]}"
            notes.append(Problem(_INFO, said))
    return found, notes


def _width(root: Path, column: str, files: Sequence[str]) -> tuple[int, int]:
    """Width of a column and how many rows of the first file are null.

    Raises:
        Damaged: the column is no matrix of one width in most files.
    """
    widths: list[int] = []
    reasons: list[str] = []
    num_null = 0
    for number, file in enumerate(files):
        try:
            table = pq.ParquetFile(root / file)
            if column not in table.schema_arrow.names or not is_numeric(table.schema_arrow.field(column).type):
                raise Damaged(f"is not in {file}, or no numbers")
            rows = _rows(column, table.read([column])[column])
            widths.append(_common_width(rows, file))
            num_null = num_null if number else sum(row is None for row in rows)
        except (OSError, pa.ArrowException):
            continue  # its episodes are refused by name when they are read
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
    if num_rows < MOST * counts.total():
        raise Damaged(f"has rows of {min(counts)} to {max(counts)} values in {file}")
    if width == 0:
        raise Damaged(f"has no values in {file}")
    return width


def read_matrix(name: str, column: Any, width: int) -> Float32[ndarray, "n d"]:
    """The values of a column, a row a frame; a null row is nan.

    Raises:
        Damaged: a row has another number of values.
    """
    rows = _rows(name, column)
    found = {len(row) for row in rows if row is not None}
    if len(found) > 1:
        raise Damaged(f"column {name} is not rows of as many numbers each: {min(found)} to {max(found)}, not {width}")
    if found and found != {width}:
        raise Damaged(f"column {name} has {found.pop()} values a row, {width} in other episodes")
    missing = np.full(width, np.nan, np.float32)
    return np.stack([missing if row is None else row for row in rows])


def is_numeric(type_: pa.DataType) -> bool:
    """Whether a column holds numbers, or lists of numbers."""
    while isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        type_ = type_.value_type
    return pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_boolean(type_)


def _rows(name: str, column: Any) -> list[Float32[ndarray, " d"] | None]:
    try:
        return [None if row is None else np.asarray(row, np.float32).ravel() for row in column.to_pylist()]
    except (ValueError, TypeError):
        raise Damaged(f"column {name} has rows that are no lists of numbers") from None
