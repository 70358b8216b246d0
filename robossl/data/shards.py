"""Shards: Arrow IPC files with one row per stored frame.

Beside each shard lies a `.units` file with one record per unit (what ingest reads as one episode). A shard is valid
once its `.units` file exists, because the writer renames this file into place last. The next ingest removes shards that
have no `.units` file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy import ndarray

from robossl.common.atomic_io import atomic_write, sync

BATCH_ROWS = 256  # rows in each record batch except the last, so row // BATCH_ROWS is the number of its batch


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """The result of reading one unit (episode). If `reason` is set, the unit was left out and its rows are unused."""

    source: str
    key: str
    fingerprint: str
    reason: str = ""
    first_row: int = 0  # first row of the episode in the shard
    num_frames: int = 0  # number of stored frames
    num_duplicates: int = 0  # number of frames dropped because they equal the frame before them
    num_bytes: int = 0
    end_seconds: float = 0.0  # time of the episode's last frame, even if this frame was dropped
    hash: str = ""  # hash of the stored pictures, times and columns
    num_thinned: int = 0  # number of frames dropped because they nearly equal the last kept frame


_TYPES: dict[str, pa.DataType] = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
RECORD_SCHEMA = pa.schema([(entry.name, _TYPES[str(entry.type)]) for entry in fields(UnitRecord)])


class ShardWriter:
    """Writes one shard (a file of frames) in a `with` block. If the block raises an error, the shard is removed."""

    def __init__(self, folder: Path, name: str, columns: Mapping[str, int]) -> None:
        self._path = folder / f"{name}.arrow"
        self._columns = dict(columns)
        types: dict[str, pa.DataType] = {
            "jpeg": pa.binary(),
            "time_seconds": pa.float64(),
            "hw": pa.list_(pa.int16(), 2),
            "unit": pa.int32(),
        }
        types |= {f"column:{column}": pa.list_(pa.float32(), width) for column, width in self._columns.items()}
        self._schema = pa.schema(types)
        self._rows: list[tuple[bytes, float, tuple[int, int], int, Mapping[str, ndarray]]] = []
        self.num_rows = 0

    def __enter__(self) -> Self:
        self._open_files = ExitStack()
        self._file = self._open_files.enter_context(open(self._path, "wb"))
        self._writer = pa.ipc.new_file(self._file, self._schema)
        return self

    def append(
        self, jpeg: bytes, time_seconds: float, hw: tuple[int, int], unit: int, columns: Mapping[str, ndarray]
    ) -> None:
        """Add one frame."""
        self._rows.append((jpeg, time_seconds, hw, unit, columns))
        self.num_rows += 1
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def finish(self, records: Sequence[UnitRecord]) -> None:
        """Close the file and write the records of its units (episodes). After this, the shard is valid."""
        self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._open_files.close()
        sync(self._path.parent)
        write_records(self._path.with_suffix(".units"), records)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._path.unlink(missing_ok=True)
            # If the disk is full, closing the file raises the error again, because bytes are still buffered.
            with suppress(OSError):
                self._open_files.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        jpegs, times, sizes, units, columns = zip(*self._rows, strict=True)
        arrays = [
            pa.array(jpegs, pa.binary()),
            pa.array(times, pa.float64()),
            as_lists(np.array(sizes, np.int16)),
            pa.array(units, pa.int32()),
        ]
        arrays += [as_lists(np.stack([row[name] for row in columns]).astype(np.float32)) for name in self._columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._rows.clear()


def record_fields(records: Iterable[UnitRecord]) -> list[str]:
    """Return the names of the fields to write.

    Earlier versions do not know `num_thinned`, so it is left out if no frame was thinned.
    """
    is_thinned = any(record.num_thinned for record in records)
    return [name for name in RECORD_SCHEMA.names if is_thinned or name != "num_thinned"]


def write_records(path: Path, records: Sequence[UnitRecord]) -> None:
    """Write the records of a shard's units (episodes) atomically."""
    schema = pa.schema([RECORD_SCHEMA.field(name) for name in record_fields(records)])
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=schema)
    with (
        atomic_write(path) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)


def read_records(folder: Path) -> dict[str, list[UnitRecord]]:
    """Return {name of a shard: its records} for every valid shard; remove the unfinished files of killed ingests."""
    found: dict[str, list[UnitRecord]] = {}
    for path in sorted(folder.glob("*.units")):
        found[path.stem] = [
            UnitRecord(**row) for row in pa.ipc.open_file(pa.memory_map(str(path))).read_all().to_pylist()
        ]
    for path in folder.iterdir():
        if path.suffix == ".tmp" or (path.suffix == ".arrow" and path.stem not in found):
            path.unlink()
    return found


class ShardReader:
    """Reads rows of one shard (a file of frames) in any order, through a memory map."""

    def __init__(self, path: Path) -> None:
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._jpegs: dict[int, tuple[ndarray, ndarray]] = {}

    def jpeg(self, row: int) -> ndarray:
        """Return the JPEG bytes of one row as uint8. The array is memory-mapped, so nothing is copied."""
        number, place = divmod(row, BATCH_ROWS)
        if number not in self._jpegs:
            self._jpegs[number] = self._open(number)
        starts, data = self._jpegs[number]
        return data[starts[place] : starts[place + 1]]

    def gather(self, column: str, rows: ndarray) -> ndarray:
        """Return the values of a fixed-width column at the given rows: (n,) or (n, d)."""
        numbers = rows // BATCH_ROWS
        parts = {int(number): self._values(column, int(number)) for number in np.unique(numbers)}
        return np.stack([parts[int(number)][row] for number, row in zip(numbers, rows % BATCH_ROWS, strict=True)])

    def values(self, column: str) -> ndarray:
        """Return all values of a fixed-width column: (n,) or (n, d)."""
        parts = [self._values(column, number) for number in range(self._reader.num_record_batches)]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _values(self, column: str, number: int) -> ndarray:
        return as_numpy(self._reader.get_batch(number).column(column))

    def _open(self, number: int) -> tuple[ndarray, ndarray]:
        array = self._reader.get_batch(number).column("jpeg")
        _, starts, data = array.buffers()
        assert starts is not None and data is not None
        offsets = np.frombuffer(memoryview(starts), np.int32)[array.offset : array.offset + len(array) + 1]
        return offsets, np.frombuffer(memoryview(data), np.uint8)


def as_numpy(array: pa.Array[Any]) -> ndarray:
    """Return a fixed-width column as an array without a copy: (n,), or (n, d) for fixed-size lists."""
    if isinstance(array, pa.FixedSizeListArray):
        flat: ndarray = array.flatten().to_numpy()
        return flat.reshape(len(array), -1)
    values: ndarray = array.to_numpy()
    return values


def as_lists(values: ndarray) -> pa.FixedSizeListArray[Any]:
    """Convert (n, d) values to fixed-size lists. This is the inverse of `as_numpy`."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
