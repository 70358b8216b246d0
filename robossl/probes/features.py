"""Features of rendered views, on disk by subject and view: a run that was stopped goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.lib import format as npy

from robossl.durable import is_whole_array, locked, raise_disk_full
from robossl.probes.subjects.probed import Output, Probed

CHUNK = 64  # frames between two writes: what a stop loses at most


@dataclass(frozen=True, slots=True)
class ViewFile:
    """Frames of one view, rendered.

    Args:
        path: .npy file of uint8 (n, h, w, 3).
        digest: Of its content.
        outputs: What is wanted of it.
    """

    path: Path
    digest: str
    outputs: tuple[Output, ...] = ("pooled",)


Watch = Callable[[str, int, int], None]  # what, frames done, frames in all
Features = Mapping[Output, ndarray]


def features(
    probed: Probed, views: Sequence[ViewFile], cache: Path, *, watch: Watch = lambda what, done, total: None
) -> Iterator[dict[Output, ndarray]]:
    """Features of each view in turn, mapped from the cache; memory holds one chunk, whatever the number of views.

    Args:
        probed: What embeds.
        views: What is embedded; outputs that the subject has not are left out.
        cache: Folder of all subjects.
        watch: Told of progress, over all views.

    Raises:
        InputError: features that are no features.
        ResourceError: the disk is full, or a server does not answer.
    """
    folder = _folder(probed, cache)
    frames = [np.load(view.path, mmap_mode="r", allow_pickle=False) for view in views]
    total, before = sum(map(len, frames)), 0
    with locked(folder, f"probe of {probed.about.name}", wait=True):
        for view, each in zip(views, frames, strict=True):
            files = {name: _path(folder, view, name) for name in view.outputs if name in probed.outputs}
            missing = {name: path for name, path in files.items() if not is_whole_array(path)}
            if missing:
                with raise_disk_full(folder):
                    for done in _embed(probed, each, missing):
                        watch(f"embed with {probed.about.name}", before + done, total)
            before += len(each)
            watch(f"embed with {probed.about.name}", before, total)
            yield {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in files.items()}


def paths(probed: Probed, view: ViewFile, cache: Path) -> list[Path]:
    """The files of a view's features."""
    folder = _folder(probed, cache)
    return [_path(folder, view, name) for name in view.outputs if name in probed.outputs]


def _folder(probed: Probed, cache: Path) -> Path:
    return cache / probed.digest[:32]


def _path(folder: Path, view: ViewFile, name: Output) -> Path:
    return folder / f"{view.digest[:32]}.{name}.npy"


def _embed(probed: Probed, frames: UInt8[ndarray, "n h w 3"], paths: dict[Output, Path]) -> Iterator[int]:
    """Append chunks to files beside, which take their names when they are whole; yields frames done."""
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.with_suffix(".part").open("ab+")) for name, path in paths.items()}
        first = min(_rows_kept(file, len(frames)) for file in files.values())
        for file in files.values():
            _keep(file, first)
        for start in range(first, len(frames), CHUNK):
            found = probed(np.array(frames[start : start + CHUNK]))
            for name, file in files.items():
                _append(file, found[name], len(frames), is_first=start == 0)
            yield min(start + CHUNK, len(frames))
    for path in paths.values():
        path.with_suffix(".part").replace(path)


def _append(file: BinaryIO, values: ndarray, num_frames: int, *, is_first: bool) -> None:
    if is_first:
        shape = (num_frames, *values.shape[1:])
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file.write(np.ascontiguousarray(values, "<f4").tobytes())
    file.flush()
    os.fsync(file.fileno())


def _rows_kept(file: BinaryIO, num_frames: int) -> int:
    """Whole rows of so many frames that an earlier run has written."""
    header = _header(file)
    if header is None or header.num_rows != num_frames:
        return 0
    return min(num_frames, (file.seek(0, os.SEEK_END) - header.end) // header.row_bytes)


def _keep(file: BinaryIO, rows: int) -> None:
    header = _header(file)
    file.truncate(header.end + rows * header.row_bytes if header and rows else 0)


class _Header(NamedTuple):
    num_rows: int
    row_bytes: int
    end: int  # where the rows start


def _header(file: BinaryIO) -> _Header | None:
    """What a file of features says of itself; None where an earlier run was stopped before it was written."""
    file.seek(0)
    try:
        npy.read_magic(file)
        shape, _, _ = npy.read_array_header_1_0(file)
    except ValueError:
        return None
    return _Header(shape[0], 4 * int(np.prod(shape[1:])), file.tell())
