"""Features of a whole store as a folder of parquet files, written one by one, so that a killed run goes on."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from numpy import ndarray

from robossl.common.atomic_io import atomic_write, check_folder, raise_disk_full
from robossl.common.progress import Progress
from robossl.common.ray_tasks import map_on_ray
from robossl.data.parts import Part
from robossl.data.store import Store, open_store
from robossl.encoders.inference import FrameEncoder, load_encoder
from robossl.errors import InputError

FILE_ROWS = 4096  # frames in a file; a run that is killed computes at most one file again
ABOUT = b"robossl"  # key of the files' metadata: what they were computed from, in JSON
CARD = b"robossl.card"


@dataclass(frozen=True, slots=True)
class FileJob:
    """One file to write."""

    path: Path
    rows: Int64[ndarray, " n"]  # rows of the store
    about: Mapping[str, object]
    batch_size: int


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """How a worker process opens the encoder: the arguments of `load_encoder`."""

    source: str
    device: str
    outputs: tuple[str, ...]
    batch_size: int


def embed_store(
    encode: FrameEncoder,
    store: Store,
    out: Path,
    *,
    split: str | None = None,
    part: Part | None = None,
    batch_size: int = 32,
    file_rows: int = FILE_ROWS,
    on_ray: EncoderSource | None = None,
) -> int:
    """Write the features of a store's frames to `out`, skipping the files that are there; return the number of frames.

    Each file has the columns episode, frame (number in its episode), row (number in the store), time_seconds, and one
    fixed-size list of float32 for each output. An output with more than one axis is flattened; its shape is in the
    metadata.

    Args:
        encode: The encoder.
        store: The store.
        out: The folder of the files.
        split: Embed only this split.
        part: Write only the files of this part, so that several processes or machines share the work.
        batch_size: Frames that go through the encoder together.
        file_rows: Frames in a file.
        on_ray: How the workers of a Ray cluster open the encoder; None to write the files in this process.

    Raises:
        InputError: no such split, or `out` holds features of another store or encoder.
        ResourceError: the disk is full, or a Ray cluster cannot be used.
    """
    rows = store.rows(split)
    about = {"content_hash": store.content_hash, "encoder": encode.card.digest, "split": split, "file_rows": file_rows}
    check_folder(out, option="--out")
    _check_files(out, about)
    starts = range(0, len(rows), file_rows)
    own = [start for number, start in enumerate(starts) if part is None or number % part.count == part.number - 1]
    jobs = [
        FileJob(out / f"frames_{start:010d}.parquet", rows[start : start + file_rows], about, batch_size)
        for start in own
    ]
    total, missing = sum(len(job.rows) for job in jobs), [job for job in jobs if not job.path.exists()]
    with Progress(unit="frames") as progress, raise_disk_full(out):
        progress.advance("embedded", total - sum(len(job.rows) for job in missing), total)
        for job in _run(missing, encode, store, on_ray):
            progress.advance("embedded", len(job.rows), total)
    return total


def _run(
    jobs: Sequence[FileJob], encode: FrameEncoder, store: Store, on_ray: EncoderSource | None
) -> Iterator[FileJob]:
    """Write files; yield the job of each when it is written."""
    if on_ray is None:
        for job in jobs:
            write_file(job, encode, store)
            yield job
        return
    place = store.path.resolve()
    for (_, _, job), _ in map_on_ray(_write_file_there, [(on_ray, place, job) for job in jobs]):
        yield job


def _write_file_there(item: tuple[EncoderSource, Path, FileJob]) -> None:
    """Write a file in a worker of Ray, which keeps the encoder and the store open for the next file."""
    source, store, job = item
    write_file(job, _load(source), _open(store))


@functools.lru_cache(maxsize=1)
def _load(source: EncoderSource) -> FrameEncoder:
    return load_encoder(source.source, device=source.device, outputs=source.outputs, batch_size=source.batch_size)


@functools.lru_cache(maxsize=1)
def _open(path: Path) -> Store:
    return open_store(path)


def write_file(job: FileJob, encode: FrameEncoder, store: Store) -> None:
    """Compute the features of a file's rows, and write it in one step."""
    for left in job.path.parent.glob(f"{job.path.name}.*.tmp"):  # a killed run left it
        left.unlink()
    table = _features(encode, store, job)
    with raise_disk_full(job.path.parent), atomic_write(job.path) as aside:
        pq.write_table(table, aside, compression="zstd")


def _check_files(out: Path, about: Mapping[str, object]) -> None:
    """Check that all files of the folder were computed from the same store and encoder in the same way."""
    for path in sorted(out.glob("*.parquet")):
        metadata = pq.read_schema(path).metadata or {}
        found = json.loads(metadata.get(ABOUT, b"{}"))
        if found != about:
            what = next((name for name in about if found.get(name) != about[name]), "settings")
            raise InputError(
                f"{path} was computed with {what.replace('_', ' ')} {found.get(what)}, got {about[what]}; "
                "choose another --out"
            )


def _features(encode: FrameEncoder, store: Store, job: FileJob) -> pa.Table:
    rows = job.rows
    parts = [encode(frames) for frames in _batches(store, rows, job.batch_size)]
    episodes = store.episode_of(rows)
    columns: dict[str, Any] = {
        "episode": pa.array(store.episode_id[episodes]).dictionary_encode(),
        "frame": pa.array(rows - store.episode_start[episodes]),
        "row": pa.array(rows),
        "time_seconds": pa.array(store.time_seconds[rows]),
    }
    shapes = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts]).astype(np.float32)
        shapes[name] = list(values.shape[1:])
        flat = values.reshape(len(values), -1)
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    metadata = {ABOUT: json.dumps(dict(job.about)), CARD: encode.card.to_json(), b"robossl.shapes": json.dumps(shapes)}
    return pa.table(columns).replace_schema_metadata(metadata)


def _batches(store: Store, rows: Int64[ndarray, " n"], batch_size: int) -> Iterator[ndarray]:
    """Yield batches of uint8 frames (b, h, w, 3) in the order of the rows; the frames of a batch have one size."""
    for _, alike in itertools.groupby(rows, key=lambda row: tuple(store.frame_hw[row])):
        while chosen := list(itertools.islice(alike, batch_size)):
            yield np.stack([frame.permute(1, 2, 0).numpy() for frame in store.decode(chosen)])
