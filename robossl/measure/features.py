"""Cache of features on disk: each subject (encoder or baseline) embeds the same frames only once.

The path of a cache file is made of the subject's digest, the frames' digest and the name of the output. New features
are appended to a temporary file, which gets the final name when it is complete. A stopped run therefore continues where
it was.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache as cached
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.lib import format as npy

from robossl.common.atomic_io import check_folder, is_whole_array, locked, raise_disk_full
from robossl.measure.subjects.subject import Output, Subject

CHUNK = 64  # frames embedded between two writes to the file; a stopped run loses at most this number

Watch = Callable[[int, int], None]  # takes the number of frames done and the total number of frames
Features = Mapping[Output, ndarray]


class FrameSource(Protocol):
    """A sequence of frames that is read in chunks."""

    @property
    def digest(self) -> str:
        """Digest that identifies the pixels of the frames and their order."""
        ...

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterable[UInt8[ndarray, "h w 3"]]:
        """Return frames `start` to `stop` - 1; their sizes may differ."""
        ...


@dataclass(frozen=True, slots=True)
class ViewFile:
    """File with the rendered frames of one view (one transformation of the frames).

    Args:
        path: .npy file of uint8 (n, h, w, 3).
        digest: Digest that identifies the content of the file.
        outputs: Outputs of the encoder that are wanted for these frames.
    """

    path: Path
    digest: str
    outputs: tuple[Output, ...] = ("pooled",)

    def __len__(self) -> int:
        return len(self._frames())

    def read(self, start: int, stop: int) -> UInt8[ndarray, "b h w 3"]:
        """Return frames `start` to `stop` - 1."""
        return np.array(self._frames()[start:stop])

    def _frames(self) -> UInt8[ndarray, "n h w 3"]:
        frames: UInt8[ndarray, "n h w 3"] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        return frames


def embed_views(
    subject: Subject, views: Sequence[ViewFile], cache: Path, *, watch: Watch = lambda done, total: None
) -> Iterator[Features]:
    """Yield the features of each view (transformed frames) as arrays that are memory-mapped from the cache.

    Args:
        subject: The encoder, or the reference (baseline), that embeds the frames.
        views: Files of rendered views. Wanted outputs that the subject does not have are left out.
        cache: Cache folder, which all subjects share.
        watch: Function that is called with the number of frames done and the total, both summed over the views.

    Raises:
        InputError: features are invalid, or the cache cannot be written.
        ResourceError: the disk is full, or a server does not answer.
    """
    total, done = sum(map(len, views)), 0

    def advance(num_frames: int) -> None:
        nonlocal done
        done += num_frames
        watch(done, total)

    with _locked(subject, cache):
        for view in views:
            paths = _paths(subject, view, view.outputs, cache)
            _embed_missing(subject, view, paths, advance)
            yield {name: np.load(path, mmap_mode="r", allow_pickle=False) for name, path in paths.items()}


def embed(
    subject: Subject,
    frames: FrameSource,
    *,
    cache: Path | None = None,
    advance: Callable[[int], None] = lambda num_frames: None,
) -> Features:
    """Return the features of all frames, from the cache if it has them.

    Args:
        subject: The encoder, or the reference (baseline), that embeds the frames. All its outputs are computed.
        frames: The frames to embed.
        cache: Cache folder, which all subjects share. None: compute the features in memory, without a cache.
        advance: Function that is called with the number of frames done since the last call.

    Raises:
        InputError: features are invalid, or the cache cannot be written.
        ResourceError: the disk is full, or a server does not answer.
    """
    if cache is None:
        chunks = []
        for start in range(0, len(frames), CHUNK):
            chunks.append(_embed_chunk(subject, frames.read(start, start + CHUNK)))
            advance(min(CHUNK, len(frames) - start))
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in subject.outputs}
    paths = _paths(subject, frames, subject.outputs, cache)
    if all(map(is_whole_array, paths.values())):
        advance(len(frames))
    else:
        with _locked(subject, cache):
            _embed_missing(subject, frames, paths, advance)
    return {name: np.load(path, allow_pickle=False) for name, path in paths.items()}


def feature_paths(subject: Subject, view: ViewFile, cache: Path) -> list[Path]:
    """Return the paths of the cache files with a subject's features of a view (transformed frames)."""
    return list(_paths(subject, view, view.outputs, cache).values())


@contextmanager
def _locked(subject: Subject, cache: Path) -> Iterator[None]:
    check_folder(cache, option="--cache")
    with locked(_folder(subject, cache), f"run with {subject.info.name}", wait=True), raise_disk_full(cache):
        yield


def _embed_missing(
    subject: Subject, frames: FrameSource, paths: dict[Output, Path], advance: Callable[[int], None]
) -> None:
    missing = {name: path for name, path in paths.items() if not is_whole_array(path)}
    if missing:
        _write(subject, frames, missing, advance)
    else:
        advance(len(frames))


def _paths(subject: Subject, frames: FrameSource, outputs: Sequence[Output], cache: Path) -> dict[Output, Path]:
    folder, digest = _folder(subject, cache), frames.digest[:32]
    return {name: folder / f"{digest}.{name}.npy" for name in outputs if name in subject.outputs}


def _folder(subject: Subject, cache: Path) -> Path:
    return cache / hashlib.sha256(f"{subject.digest} {_code_digest()}".encode()).hexdigest()[:32]


@cached
def _code_digest() -> str:
    """Return a digest of the code that computes features.

    The cache needs it, because the digest of the weights does not tell how frames are resized and features pooled.
    """
    from robossl.encoders import encoder, encoder_config, outputs, positions
    from robossl.measure import subjects

    digest = hashlib.sha256(f"{version('torch')} {version('timm')} ".encode())
    parts = (encoder.__file__, encoder_config.__file__, outputs.__file__, positions.__file__, __file__)
    for path in (*map(Path, parts), *sorted(Path(subjects.__file__).parent.glob("*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(subject: Subject, frames: FrameSource, paths: dict[Output, Path], advance: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        files = {name: stack.enter_context(path.with_suffix(".part").open("ab+")) for name, path in paths.items()}
        first = min(_rows_kept(file, len(frames)) for file in files.values())
        for file in files.values():
            _keep(file, first)
        advance(first)
        for start in range(first, len(frames), CHUNK):
            features = _embed_chunk(subject, frames.read(start, start + CHUNK))
            for name, file in files.items():
                _append(file, features[name], len(frames), is_first=start == 0)
            advance(min(CHUNK, len(frames) - start))
    for path in paths.values():
        path.with_suffix(".part").replace(path)


def _embed_chunk(subject: Subject, chunk: Iterable[UInt8[ndarray, "h w 3"]]) -> Features:
    """Embed frames of mixed sizes, one batch per size; keep their order."""
    frames = list(chunk)
    sizes = [frame.shape for frame in frames]
    if len(set(sizes)) == 1:
        return subject(np.stack(frames))
    rows: dict[int, dict[Output, ndarray]] = {}
    for size in dict.fromkeys(sizes):
        places = [i for i, other in enumerate(sizes) if other == size]
        features = subject(np.stack([frames[i] for i in places]))
        rows |= {place: {name: values[i] for name, values in features.items()} for i, place in enumerate(places)}
    return {name: np.stack([rows[i][name] for i in range(len(frames))]) for name in subject.outputs}


def _append(file: BinaryIO, values: ndarray, num_frames: int, *, is_first: bool) -> None:
    if is_first:
        shape = (num_frames, *values.shape[1:])
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file.write(np.ascontiguousarray(values, "<f4").tobytes())
    file.flush()
    os.fsync(file.fileno())


def _rows_kept(file: BinaryIO, num_frames: int) -> int:
    """Return how many complete rows an earlier run wrote; 0 if that run had another number of frames."""
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
    end: int  # byte at which the rows start


def _header(file: BinaryIO) -> _Header | None:
    """Read the header of a .npy file; return None if an earlier run was stopped before it had written the header."""
    file.seek(0)
    try:
        npy.read_magic(file)
        shape, _, _ = npy.read_array_header_1_0(file)
    except ValueError:
        return None
    return _Header(shape[0], 4 * int(np.prod(shape[1:])), file.tell())
