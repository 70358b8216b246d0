"""Rows of large arrays (HDF5, Zarr): read them in blocks, take frames from them, and choose columns of numbers."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.data.manifest import Problem
from robossl.data.pictures import check_size, decode_image
from robossl.data.source import Damaged
from robossl.errors import InputError

BLOCK_BYTES = 2 << 20  # bytes to read at once, if a chunk has fewer


class RowArray(Protocol):
    """An array on disk whose rows can be read."""

    shape: tuple[int, ...]
    dtype: Any
    chunks: tuple[int, ...] | None

    def __getitem__(self, key: slice, /) -> Any: ...


def import_reader(module: str, extra: str) -> Any:
    """Import the optional package that reads a format.

    Raises:
        InputError: the package is not installed; the message has the pip line.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"the format {extra} needs the package {module}, which cannot be imported ({error}): "
            f"pip install 'robossl[{extra}]'"
        ) from error


class RowReader:
    """Reads single rows of arrays and keeps the last block (whole chunks) of each, so no chunk is decoded twice."""

    def __init__(self) -> None:
        self._blocks: dict[str, tuple[int, Any]] = {}

    def row(self, name: str, array: RowArray, number: int) -> Any:
        """Return one row of the array; `name` tells arrays apart."""
        begin, block = self._blocks.get(name, (0, ()))
        if not begin <= number < begin + len(block):
            row_bytes = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
            chunk = array.chunks[0] if array.chunks else 1
            size = chunk * max(1, BLOCK_BYTES // (chunk * row_bytes))
            begin = number // size * size
            block = array[begin : min(begin + size, array.shape[0])]
            self._blocks[name] = begin, block
        return block[number - begin]

    def clear(self) -> None:
        """Forget all blocks."""
        self._blocks.clear()


def is_camera(array: RowArray) -> bool:
    """Return whether an array holds pictures: (n, h, w, 3) or (n, 3, h, w) in uint8."""
    return array.dtype == np.uint8 and len(array.shape) == 4 and 3 in (array.shape[3], array.shape[1])


def to_pixels(picture: ndarray) -> UInt8[ndarray, "h w 3"]:
    """Return a picture with its channels last, or decode the bytes of a JPEG or PNG (padded with zeros).

    Raises:
        Damaged: the bytes are not an image, or the image is too large.
    """
    if picture.ndim == 1:
        return decode_image(picture.tobytes().rstrip(b"\0"))
    pixels = picture if picture.shape[2] == 3 else picture.transpose(1, 2, 0)
    check_size(pixels.shape[1], pixels.shape[0])
    return pixels


def column_width(array: RowArray) -> int:
    """Return the number of values per row of a column of numbers; 0 if the array is no such column."""
    return 0 if array.dtype.kind not in "fiub" or len(array.shape) not in (1, 2) else int(np.prod(array.shape[1:]))


def common_columns(found: Mapping[str, Mapping[str, int]]) -> tuple[dict[str, int], list[Problem]]:
    """Choose the columns that all episodes have with one width.

    Args:
        found: widths (values per row) of the columns of each episode.

    Returns:
        The widths of the columns to store, and a note for every column that is left out.
    """
    counts = Counter((name, width) for widths in found.values() for name, width in widths.items())
    kept = {name: width for (name, width), count in sorted(counts.items()) if count == len(found)}
    notes = []
    for name in sorted({name for name, _ in counts} - kept.keys()):
        widths = sorted({width for other, width in counts if other == name})
        lacking = next((key for key, columns in found.items() if name not in columns), "")
        why = f"missing in {lacking}" if lacking else f"has {widths[0]} to {widths[-1]} values per row"
        notes.append(Problem(next(iter(found)), f"column {name} {why}; not read"))
    return kept, notes


def join_names(names: Sequence[str]) -> str:
    """Join names to one text for the address of a unit."""
    return "\n".join(names)


def split_names(text: object) -> list[str]:
    """Return the names that `join_names` joined."""
    return [name for name in str(text).split("\n") if name]


def check_length(name: str, array: RowArray, num_frames: int) -> None:
    """Check that an array has a row for each frame.

    Raises:
        Damaged: it has fewer or more.
    """
    if array.shape[0] != num_frames:
        raise Damaged(f"{name} has {array.shape[0]} rows for {num_frames} frames; every array needs a row per frame")
