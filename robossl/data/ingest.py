"""Ingest: read foreign sources once and write them as a store, in parallel, restartable at any moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from robossl.data.files import stated_licence
from robossl.data.index import Entry, merge_entries, problems_of, read_entries, write_index
from robossl.data.manifest import Manifest, Problem, SourceEntry, read_manifest, write_manifest
from robossl.data.progress import Progress
from robossl.data.shards import read_records
from robossl.data.source import Listing
from robossl.data.sources import detect_format, source_class
from robossl.data.worker import ShardJob, start_worker, write_shard
from robossl.errors import InputError, ResourceError

SHARD_FRAMES = 2048  # a killed ingest loses at most this much a worker
MAX_SHARDS = 512  # a reader keeps a file open a shard it touched
BYTES_PER_PIXEL = 0.3  # JPEG quality 90 of robot video, measured 0.26; for the estimate of disk space


@dataclass(frozen=True, slots=True)
class Listed:
    """A source of this run and what it holds."""

    entry: SourceEntry
    root: Path
    listing: Listing


def ingest(
    sources: Sequence[Path],
    *,
    out: Path,
    format: str = "auto",
    labels: Path | None = None,
    licence: str | None = None,
    short_side: int = 256,
    quality: int = 90,
    workers: int | None = None,
    strict: bool = False,
) -> Manifest:
    """Add sources to a store, making it when it is new; what is already stored is not read again.

    Raises:
        InputError: a source cannot be used, the store was made with other settings, or `strict` and anything was wrong.
        ResourceError: the disk is too small, a worker died, or another ingest writes to the same store.
    """
    _check(sources, short_side, quality, workers)
    found = [_find(Path(source), format, labels) for source in sources]
    with _locked(out):
        manifest = _open_or_create(out, short_side, quality)
        listed, manifest = _name_sources(found, manifest, licence)
        done = _finished(out)
        if strict:
            _refuse([(one.entry.name, problems_of(one.listing, done.get(one.entry.name, {}))) for one in listed])
            _refuse([(one.entry.name, one.listing.notes) for one in listed])
        jobs = plan(out, manifest, listed, done)
        num_frames = sum(job.num_frames for job in jobs)
        with Progress(num_frames) as progress:
            _announce(progress, out, listed, jobs, short_side)
            _check_disk(out, num_frames, short_side)
            write_manifest(out, manifest)
            for job, problems in run_jobs(jobs, workers or os.cpu_count() or 1):
                progress.advance(job.num_frames, job.source, problems)
                if strict:
                    _refuse([(job.source, problems)])
        manifest = _commit(out, manifest, listed)
        progress.result(manifest)
        return manifest


def plan(out: Path, manifest: Manifest, listed: Sequence[Listed], done: dict[str, dict[tuple[str, str], Entry]]) -> list[ShardJob]:
    """Cut what is not stored yet into jobs, each of consecutive units of one source."""
    todo = [
        (one, [unit for unit in one.listing.units if (unit.key, unit.fingerprint) not in done.get(one.entry.name, {})])
        for one in listed
    ]
    num_frames = sum(unit.num_frames for _, units in todo for unit in units)
    per_shard = max(SHARD_FRAMES, num_frames // MAX_SHARDS)
    jobs: list[ShardJob] = []
    for one, units in todo:
        start = size = 0
        for number, unit in enumerate(units):
            size += unit.num_frames
            if size < per_shard and number + 1 < len(units):
                continue
            chosen = tuple(units[start : number + 1])
            text = "\n".join([one.entry.name, *(f"{unit.key} {unit.fingerprint}" for unit in chosen)])
            name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            jobs.append(ShardJob(
                folder=out / "shards", name=name, source=one.entry.name, format=one.entry.format, root=one.root, units=chosen,
                columns=one.listing.columns, short_side=manifest.short_side, quality=manifest.quality,
            ))  # fmt: skip
            start, size = number + 1, 0
    return jobs


def run_jobs(jobs: Sequence[ShardJob], workers: int) -> Iterator[tuple[ShardJob, list[Problem]]]:
    """Run jobs in worker processes and yield each as it ends; one worker runs in this process.

    Raises:
        ResourceError: a worker was killed, most often for memory.
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
        raise ResourceError("a worker process was killed (out of memory?); run the same command again, with fewer --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _announce(progress: Progress, out: Path, listed: Sequence[Listed], jobs: Sequence[ShardJob], short_side: int) -> None:
    for one in listed:
        num_new = sum(len(job.units) for job in jobs if job.source == one.entry.name)
        progress.say(f"{one.entry.name} ({one.entry.format}, licence {one.entry.licence}): {len(one.listing.units)} episodes, {num_new} new")
        progress.problems(one.entry.name, one.listing.skipped)
        progress.problems(one.entry.name, one.listing.notes, verb="noted")
    num_frames = sum(job.num_frames for job in jobs)
    progress.say(
        f"about {num_frames} frames to store at short side {short_side}: {estimate_bytes(num_frames, short_side) / 2**20:.0f} MiB "
        f"of {shutil.disk_usage(out).free / 2**20:.0f} MiB free in {out}"
    )


def _commit(out: Path, manifest: Manifest, listed: Sequence[Listed]) -> Manifest:
    done = _finished(out)
    by_name = {one.entry.name: one for one in listed}
    entries = merge_entries(read_entries(out, manifest), {name: one.listing for name, one in by_name.items()}, done)
    problems = {name: problems_of(one.listing, done.get(name, {})) for name, one in by_name.items()}
    if not entries:
        first = next((problem for found in problems.values() for problem in found), Problem("it", "holds nothing"))
        raise InputError(f"nothing could be read from {', '.join(str(one.root) for one in listed)}: {first.path}: {first.reason}")
    sources = tuple(
        replace(source, skipped=problems[source.name], notes=by_name[source.name].listing.notes) if source.name in by_name else source
        for source in manifest.sources
    )
    manifest = write_index(out, replace(manifest, sources=sources), entries)
    write_manifest(out, manifest)
    return manifest


def _check(sources: Sequence[Path], short_side: int, quality: int, workers: int | None) -> None:
    if not sources:
        raise InputError("no source given; name at least one folder or file")
    if not 16 <= short_side <= 4096:
        raise InputError(f"--short-side must be 16 to 4096 pixels, got {short_side}")
    if not 1 <= quality <= 100:
        raise InputError(f"--quality must be 1 to 100, got {quality}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        (out / "shards").mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(f"another ingest is writing to {out}; wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def _open_or_create(out: Path, short_side: int, quality: int) -> Manifest:
    if not (out / "manifest.json").exists():
        return Manifest(short_side=short_side, quality=quality)
    manifest = read_manifest(out)
    if (manifest.short_side, manifest.quality) != (short_side, quality):
        raise InputError(
            f"{out} was made with --short-side {manifest.short_side} --quality {manifest.quality}, "
            f"got {short_side} and {quality}; use the same or another --out"
        )
    return manifest


def _find(root: Path, format: str, labels: Path | None) -> tuple[Path, str, Listing]:
    root = root.resolve()
    name = detect_format(root) if format == "auto" else format
    return root, name, source_class(name)(root, labels).list()


def _name_sources(
    found: Sequence[tuple[Path, str, Listing]], manifest: Manifest, licence: str | None
) -> tuple[list[Listed], Manifest]:
    listed: list[Listed] = []
    entries = {entry.path: entry for entry in manifest.sources}
    for root, format, listing in found:
        entry = entries.get(str(root)) or SourceEntry(_unique(root, [entry.name for entry in entries.values()]), str(root), format)
        known = entry.licence if entry.licence != "unknown" else stated_licence(root)
        entry = replace(entry, format=format, columns=listing.columns, licence=licence or known)
        entries[str(root)] = entry
        listed.append(Listed(entry, root, listing))
    return listed, replace(manifest, sources=tuple(entries.values()))


def _unique(root: Path, taken: Sequence[str]) -> str:
    name = root.stem if root.is_file() else root.name
    number = 2
    while name in taken:
        name, number = f"{root.name}-{number}", number + 1
    return name


def _finished(out: Path) -> dict[str, dict[tuple[str, str], Entry]]:
    done: dict[str, dict[tuple[str, str], Entry]] = {}
    for shard, records in read_records(out / "shards").items():
        for record in records:
            done.setdefault(record.source, {})[record.key, record.fingerprint] = Entry(record, shard)
    return done


def _refuse(problems: Sequence[tuple[str, Sequence[Problem]]]) -> None:
    found = [(source, problem) for source, some in problems for problem in some]
    if found:
        source, first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"--strict: {source}: {first.path}: {first.reason}{more}; mend it or run without --strict")


def _check_disk(out: Path, num_frames: int, short_side: int) -> None:
    need = estimate_bytes(num_frames, short_side)
    free = shutil.disk_usage(out).free
    if need > free:
        raise ResourceError(f"{out} needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; make room or use a smaller --short-side")


def estimate_bytes(num_frames: int, short_side: int) -> int:
    """Disk space of frames of aspect 16:9."""
    return int(num_frames * (short_side * short_side * 16 / 9 * BYTES_PER_PIXEL + 64))
