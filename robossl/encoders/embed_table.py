"""Features of a whole store as a folder of parquet files, written one by one, so that a killed run goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from numpy import ndarray

from robossl.common.atomic_io import atomic_write, check_folder, raise_disk_full
from robossl.common.progress import Progress
from robossl.data.parts import Part
from robossl.data.store import Store
from robossl.encoders.inference import FrameEncoder
from robossl.errors import InputError

FILE_ROWS = 4096  # frames in a file; a run that is killed computes at most one file again
ABOUT = b"robossl"  # key of the files' metadata: what they were computed from, in JSON
CARD = b"robossl.card"


def embed_store(
    encode: FrameEncoder,
    store: Store,
    out: Path,
    *,
    split: str | None = None,
    part: Part | None = None,
    batch_size: int = 32,
    file_rows: int = FILE_ROWS,
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

    Raises:
        InputError: no such split, or `out` holds features of another store or encoder.
        ResourceError: the disk is full.
    """
    rows = store.rows(split)
    about = {"content_hash": store.content_hash, "encoder": encode.card.digest, "split": split, "file_rows": file_rows}
    check_folder(out, option="--out")
    _check_files(out, about)
    starts = range(0, len(rows), file_rows)
    own = [start for number, start in enumerate(starts) if part is None or number % part.count == part.number - 1]
    with Progress(unit="frames") as progress, raise_disk_full(out):
        total = sum(len(rows[start : start + file_rows]) for start in own)
        for start in own:
            chosen, path = rows[start : start + file_rows], out / f"frames_{start:010d}.parquet"
            if not path.exists():
                for left in out.glob(f"{path.name}.*.tmp"):  # a killed run left it
                    left.unlink()
                table = _features(encode, store, chosen, batch_size, about)
                with atomic_write(path) as aside:
                    pq.write_table(table, aside, compression="zstd")
            progress.advance("embedded", len(chosen), total)
    return total


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


def _features(
    encode: FrameEncoder, store: Store, rows: Int64[ndarray, " n"], batch_size: int, about: Mapping[str, object]
) -> pa.Table:
    parts = [encode(frames) for frames in _batches(store, rows, batch_size)]
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
    metadata = {ABOUT: json.dumps(about), CARD: encode.card.to_json(), b"robossl.shapes": json.dumps(shapes)}
    return pa.table(columns).replace_schema_metadata(metadata)


def _batches(store: Store, rows: Int64[ndarray, " n"], batch_size: int) -> Iterator[ndarray]:
    """Yield batches of uint8 frames (b, h, w, 3) in the order of the rows; the frames of a batch have one size."""
    for _, alike in itertools.groupby(rows, key=lambda row: tuple(store.frame_hw[row])):
        while chosen := list(itertools.islice(alike, batch_size)):
            yield np.stack([frame.permute(1, 2, 0).numpy() for frame in store.decode(chosen)])
