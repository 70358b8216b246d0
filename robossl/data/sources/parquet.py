"""Parquet tables of images in the layout of the Hugging Face datasets library; the file name gives the split."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robossl.data.files import any_file, find_files, fingerprint, unreadable_reason
from robossl.data.labels import NO_LABELS, split_name
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.errors import InputError

BATCH_ROWS = 64  # rows (images) in memory at once


class ParquetSource:
    """Reads each row as an episode of one frame.

    Integer and text columns are labels. If the table states class names for an integer column, the labels
    are these names.
    """

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; a parquet table contains its own labels")
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._file = ""
        self._next_row = 0
        self._rows: Iterator[tuple[int, bytes | None]] = iter(())

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a parquet file, or a folder with one."""
        return root.suffix == ".parquet" if root.is_file() else any_file(root, {".parquet"})

    def listing(self) -> Listing:
        """List one unit (episode) per row of the tables; read only the label columns."""
        if self._only is None:
            paths, skipped = find_files(self._root, {".parquet"})
        else:
            reason = unreadable_reason(self._root, self._only)
            paths, skipped = ([], [Problem(self._only, reason)]) if reason else ([self._only], [])
        units: list[Unit] = []
        for path in paths:
            try:
                units += self._units(path)
            except (Damaged, OSError, pa.ArrowException) as error:
                skipped.append(Problem(path, f"cannot be read as a table of images ({error})"))
        return Listing(units, tuple(skipped))

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the image of a row. Reading the rows in order takes only one pass over the file."""
        file, row = str(unit.address["file"]), int(unit.address["row"])
        if file != self._file or row < self._next_row:
            self._file, self._rows = file, self._walk(file, row)
        for number, data in self._rows:
            self._next_row = number + 1
            if number == row:
                if data is None:
                    raise Damaged("the row has no image bytes")
                yield Frame(decode_image(data))
                return
        self._file = ""
        raise Damaged("the row is missing")

    def _units(self, path: str) -> list[Unit]:
        file = self._root / path
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        image, classes = _image_column(schema), _class_names(schema)
        columns = [field.name for field in schema if field.name != image and _is_label(field.type)]
        read = table.read(columns)
        values = {name: _texts(read[name], classes.get(name)) for name in columns}
        split, print_ = _split_of(path), fingerprint(file)
        return [
            Unit(
                f"{path}#{row:09d}",
                print_,
                1,
                split,
                {name: texts[row] for name, texts in values.items() if texts[row]},
                {"file": path, "row": row},
            )
            for row in range(table.metadata.num_rows)
        ]

    def _walk(self, path: str, row: int) -> Iterator[tuple[int, bytes | None]]:
        table = pq.ParquetFile(self._root / path)
        image = _image_column(table.schema_arrow)
        group = number = 0
        while number + table.metadata.row_group(group).num_rows <= row:
            number += table.metadata.row_group(group).num_rows
            group += 1
        groups = list(range(group, table.num_row_groups))
        for batch in table.iter_batches(BATCH_ROWS, row_groups=groups, columns=[image]):
            for data in _bytes_of(batch.column(0)):
                yield number, data
                number += 1


def _is_label(type_: pa.DataType) -> bool:
    type_ = type_.value_type if isinstance(type_, pa.DictionaryType) else type_
    return pa.types.is_integer(type_) or pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _image_column(schema: pa.Schema) -> str:
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    for field in schema:
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            return str(field.name)
    raise Damaged(f"no image column, only {', '.join(schema.names)}")


def _bytes_of(column: pa.Array[Any]) -> Iterator[bytes | None]:
    values = column.field("bytes") if isinstance(column, pa.StructArray) else column
    for value in values:
        yield value.as_py()


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    try:
        features: dict[str, Any] = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: list(feature["names"]) for name, feature in features.items() if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _texts(column: pa.ChunkedArray[Any], names: list[str] | None) -> list[str]:
    values = column.to_pylist()
    if names is None:
        return ["" if value is None else str(value) for value in values]
    return [names[value] if value is not None and 0 <= value < len(names) else "" for value in values]


def _split_of(path: str) -> str:
    words = re.split(r"[/_.-]", path.removesuffix(".parquet"))
    return next((name for name in map(split_name, words) if name), "")
