"""Jobs of an ingest: plan which shards (files of frames) to write, and write them in worker processes.

A job writes one shard from units (episodes of a source) that are not stored yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from robossl.data.listed_sources import ListedSource
from robossl.data.manifest import Manifest, Problem
from robossl.data.parts import parse_part
from robossl.data.worker import ShardJob, start_worker, write_shard
from robossl.errors import ResourceError

# Frames per shard (file of frames). A killed ingest loses at most one unfinished shard per worker.
SHARD_FRAMES = 2048
MAX_SHARDS = 512  # maximum number of shards (files) in one ingest with all its parts; a reader keeps them all open


def plan_jobs(
    out: Path, manifest: Manifest, listed: Sequence[ListedSource], done: Mapping[str, Collection[tuple[str, str]]]
) -> list[ShardJob]:
    """Group the units (episodes) that are not stored yet into jobs. A job has consecutive units of one source.

    Args:
        out: folder of the store.
        manifest: manifest of the store, which states how frames are stored.
        listed: the sources of this ingest.
        done: for each source name, the (key, fingerprint) of the units that are stored already.
    """
    unstored = [
        (one, [unit for unit in one.listing.units if (unit.key, unit.fingerprint) not in done.get(one.entry.name, {})])
        for one in listed
    ]
    num_frames = sum(unit.num_frames for _, units in unstored for unit in units)
    num_parts = parse_part(manifest.part).count if manifest.part else 1
    per_shard = max(SHARD_FRAMES, num_parts * num_frames // MAX_SHARDS)
    jobs: list[ShardJob] = []
    for one, units in unstored:
        start = size = 0
        for number, unit in enumerate(units):
            size += unit.num_frames
            if size < per_shard and number + 1 < len(units):
                continue
            chosen = tuple(units[start : number + 1])
            text = "\n".join([one.entry.name, *(f"{unit.key} {unit.fingerprint}" for unit in chosen)])
            name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            jobs.append(
                ShardJob(
                    folder=out / "shards",
                    name=name,
                    source=one.entry.name,
                    format=one.entry.format,
                    root=one.root,
                    units=chosen,
                    columns=one.listing.columns,
                    short_side=manifest.short_side,
                    quality=manifest.quality,
                    thin=manifest.thin,
                    frame_hook=manifest.frame_hook,
                )
            )
            start, size = number + 1, 0
    return jobs


def run_jobs(jobs: Sequence[ShardJob], workers: int) -> Iterator[tuple[ShardJob, list[Problem]]]:
    """Run jobs in worker processes; yield each job and its problems when it ends.

    With only one worker or one job, no process is started.

    Raises:
        ResourceError: a worker process was killed, usually for lack of memory.
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, write_shard(job)
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), initializer=start_worker)
    try:
        running: dict[Future[list[Problem]], ShardJob] = {}
        waiting = iter(jobs)
        while True:
            for job in waiting:
                running[pool.submit(write_shard, job)] = job
                if len(running) > workers:
                    break
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise ResourceError(
            "a worker process was killed (out of memory?); run the same command again, with fewer --workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
