"""The job of an ingest worker: read some units (episodes) of one source and write them to one shard (a file)."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.common.atomic_io import raise_disk_full
from robossl.data.frame_hook import apply_frame_hook
from robossl.data.manifest import Problem
from robossl.data.pictures import encode_jpeg, grey_difference, shrink, small_frame
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
    thin: float = 0.0
    frame_hook: str = ""

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
        InputError: the source returns something other than frames, or the hook something other than pixels.
        ResourceError: the disk is full; no partial shard is left.
    """
    source = source_class(job.format)(job.root)
    with raise_disk_full(job.folder), ShardWriter(job.folder, job.name, job.columns) as shard:
        records = [_store_unit(job, source, number, shard) for number in range(len(job.units))]
        shard.finish(records)
    return [Problem(record.key, record.reason) for record in records if record.reason]


@dataclass(slots=True)
class FrameTally:
    """What was read of a unit (episode) so far."""

    num_read: int = 0
    num_thinned: int = 0
    end_seconds: float = 0.0


def _kept_frames(job: ShardJob, source: Source, unit: Unit, tally: FrameTally) -> Iterator[Frame]:
    """Yield the frames to store: none that repeats the last one, and with `job.thin` none that nearly equals it."""
    last: Frame | None = None
    last_small: UInt8[ndarray, "h w"] | None = None
    frames = read_frames(source, unit, job.columns)
    for frame in apply_frame_hook(job.frame_hook, frames) if job.frame_hook else frames:
        if last is not None and frame.time_seconds < tally.end_seconds:
            raise Damaged(f"times go backwards, from {tally.end_seconds:.2f} s to {frame.time_seconds:.2f} s")
        tally.num_read, tally.end_seconds = tally.num_read + 1, frame.time_seconds
        if last is not None and same_frame(frame, last):
            continue
        if job.thin:
            small = small_frame(frame.pixels)
            if last_small is not None and grey_difference(small, last_small) < job.thin:
                tally.num_thinned += 1
                continue
            last_small = small
        yield frame
        last = frame


def _store_unit(job: ShardJob, source: Source, number: int, shard: ShardWriter) -> UnitRecord:
    unit, first_row = job.units[number], shard.num_rows
    digest = hashlib.blake2b(digest_size=16)
    tally, num_bytes = FrameTally(), 0
    try:
        for frame in _kept_frames(job, source, unit, tally):
            image = shrink(frame.pixels, job.short_side)
            jpeg = encode_jpeg(image, job.quality)
            shard.append(jpeg, frame.time_seconds, (image.height, image.width), number, frame.columns)
            digest.update(np.float64(frame.time_seconds).tobytes() + jpeg)
            for name in job.columns:
                digest.update(frame.columns[name].astype(np.float32).tobytes())
            num_bytes += len(jpeg)
        if not tally.num_read:
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
        num_duplicates=tally.num_read - num_frames - tally.num_thinned,
        num_thinned=tally.num_thinned,
        num_bytes=num_bytes,
        end_seconds=tally.end_seconds,
        hash=digest.hexdigest(),
    )
