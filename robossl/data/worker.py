"""The job of an ingest worker: read some units (episodes) of one source and write them to one shard (a file)."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import numpy as np

from robossl.common.atomic_io import raise_disk_full
from robossl.data.manifest import Problem
from robossl.data.pictures import encode_jpeg, shrink
from robossl.data.shards import ShardWriter, UnitRecord
from robossl.data.source import Damaged, Frame, Source, Unit, same_frame
from robossl.data.source_checks import read_frames
from robossl.data.sources import source_class


@dataclass(frozen=True, slots=True)
class ShardJob:
    """What a worker needs to write one shard (a file of frames): its units (episodes), and how to store them."""

    folder: Path
    name: str
    source: str
    format: str
    root: Path
    units: tuple[Unit, ...]
    columns: dict[str, int]
    short_side: int
    quality: int

    @property
    def num_frames(self) -> int:
        """Estimated number of frames, for the progress bar."""
        return sum(unit.num_frames for unit in self.units)


def start_worker() -> None:
    """Prepare a worker process: ignore Ctrl-C, which the parent handles, and exit when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def write_shard(job: ShardJob) -> list[Problem]:
    """Write one shard (a file of frames); return the units (episodes) that could not be read, with the reasons.

    Raises:
        InputError: the source returns something other than frames.
        ResourceError: the disk is full; no partial shard is left.
    """
    source = source_class(job.format)(job.root)
    with raise_disk_full(job.folder), ShardWriter(job.folder, job.name, job.columns) as shard:
        records = [_store_unit(job, source, number, shard) for number in range(len(job.units))]
        shard.finish(records)
    return [Problem(record.key, record.reason) for record in records if record.reason]


def _store_unit(job: ShardJob, source: Source, number: int, shard: ShardWriter) -> UnitRecord:
    unit, first_row = job.units[number], shard.num_rows
    digest = hashlib.blake2b(digest_size=16)
    previous: Frame | None = None
    num_read = num_bytes = 0
    end_seconds = 0.0
    try:
        for frame in read_frames(source, unit, job.columns):
            if previous is not None and frame.time_seconds < end_seconds:
                raise Damaged(f"times go backwards, from {end_seconds:.2f} s to {frame.time_seconds:.2f} s")
            num_read, end_seconds = num_read + 1, frame.time_seconds
            if previous is not None and same_frame(frame, previous):
                continue
            image = shrink(frame.pixels, job.short_side)
            jpeg = encode_jpeg(image, job.quality)
            shard.append(jpeg, frame.time_seconds, (image.height, image.width), number, frame.columns)
            digest.update(np.float64(frame.time_seconds).tobytes() + jpeg)
            for name in job.columns:
                digest.update(frame.columns[name].astype(np.float32).tobytes())
            num_bytes += len(jpeg)
            previous = frame
        if previous is None:
            raise Damaged("holds no frame")
    except Damaged as damage:
        return UnitRecord(job.source, unit.key, unit.fingerprint, reason=str(damage))
    num_frames = shard.num_rows - first_row
    return UnitRecord(
        source=job.source,
        key=unit.key,
        fingerprint=unit.fingerprint,
        first_row=first_row,
        num_frames=num_frames,
        num_duplicates=num_read - num_frames,
        num_bytes=num_bytes,
        end_seconds=end_seconds,
        hash=digest.hexdigest(),
    )
