"""Ingest: read foreign sources once and write them as a store, in parallel, restartable at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from robossl.cpus import num_cpus
from robossl.data.files import NOT_UTF8, is_utf8, spelled, stated_licence
from robossl.data.index import Entry, merge_entries, no_longer_listed, problems_of, read_entries, write_index
from robossl.data.jobs import Listed, plan, run_jobs
from robossl.data.labels import NO_LABELS
from robossl.data.manifest import Manifest, Problem, SourceEntry, read_manifest, write_manifest
from robossl.data.progress import Progress
from robossl.data.shards import read_records
from robossl.data.source import Listing, Reading
from robossl.data.sources import detect_format, source_class
from robossl.data.store import Store, open_store
from robossl.data.worker import ShardJob
from robossl.durable import full_disk_said, locked
from robossl.errors import InputError, ResourceError
from robossl.paths import StrPath
from robossl.ranges import check_positive

SHORT_SIDE, QUALITY = 256, 90  # of a new store
FRAMES_PER_S = 240  # of one worker, measured on 320x180 video; for the estimate of time
BYTES_PER_PIXEL = 0.3  # JPEG quality 90 of robot video, measured 0.29; for the estimate of disk space


def ingest(
    sources: StrPath | Sequence[StrPath],
    *,
    out: StrPath,
    format: str = "auto",
    labels: Literal["auto", "none"] | StrPath = "auto",
    label_columns: tuple[str, ...] | None = None,
    image_folders: Literal["auto", "images", "episodes"] = "auto",
    image_fps: float = 10.0,
    licence: str | None = None,
    short_side: int | None = None,
    quality: int | None = None,
    workers: int | None = None,
    strict: bool = False,
) -> Store:
    """Add sources to a store, making it when it is new; what is already stored is not read again.

    Args:
        sources: folders or files: videos, images, parquet tables or tars of images, LeRobot datasets.
        out: the store, a folder.
        format: auto, or the format's name where detection would choose another.
        labels: csv with a column `path` relative to the source, an optional column `split`, and labels; `auto` for the
            csv in the source, if it has such a column; `none` for no labels.
        label_columns: columns of the csv that are labels. By default all of a csv given by `labels`, and of one found
            in the source those that are no times or measurements.
        image_folders: what a folder of numbered images is: `episodes`, `images` on their own, or what its name and its
            pictures say.
        image_fps: frames a second of a folder of numbered images that is an episode.
        licence: of all these sources; by default what the files beside the data state.
        short_side: pixels of the shorter side of stored frames; smaller frames are not enlarged. By default what the
            store was made with, and 256 for a new one.
        quality: of the stored JPEG, 1 to 100. By default what the store was made with, and 90 for a new one.
        workers: processes, by default one a CPU that this process may use.
        strict: refuse when anything had to be skipped or corrected.

    Raises:
        InputError: a source cannot be used, the store was made with other settings, or `strict` and anything was wrong.
        ResourceError: the disk is too small, a worker died, or another ingest writes to the same store.

    Example:
        >>> import robossl
        >>> store = robossl.ingest("clips", out="stores/new", short_side=96, workers=1)
        clips (mp4): 4 episodes, 4 new; licence: unknown
        ...
        >>> store
        Store(stores/new: 4 episodes, 245 frames, splits train val, labels scene)
    """
    sources = [sources] if isinstance(sources, str | os.PathLike) else sources
    out = Path(out)
    _check(sources, short_side, quality, workers)
    check_positive(image_fps=image_fps)
    reading = Reading(label_columns, image_folders, image_fps)
    roots = dict.fromkeys(Path(source).resolve() for source in sources)
    table = None if labels == "auto" else NO_LABELS if labels == "none" else Path(labels)
    found = [_find(root, format, table, reading) for root in roots]
    with _nothing_left(out), locked(out, "ingest"), full_disk_said(out):
        (out / "shards").mkdir(exist_ok=True)
        manifest = _open_or_create(out, short_side, quality)
        listed, manifest = _name_sources(found, manifest, licence)
        done = _finished(out)
        if strict:
            _refuse([(one.entry.name, one.listing.skipped) for one in listed])
            _refuse([(one.entry.name, one.listing.notes) for one in listed])
        stored = {name: {key for key in found if not found[key].record.reason} for name, found in done.items()}
        jobs = plan(out, manifest, listed, stored)
        num_frames = sum(job.num_frames for job in jobs)
        with Progress(num_frames) as progress:
            workers = min(workers or num_cpus(), max(1, len(jobs)))
            _announce(progress, out, listed, jobs, workers)
            _check_disk(out, num_frames, manifest.short_side)
            write_manifest(out, manifest)
            for job, problems in run_jobs(jobs, workers):
                progress.advance(job.num_frames, job.source, problems)
                if strict:
                    _refuse([(job.source, problems)])
        manifest = _commit(out, manifest, listed, progress)
        progress.result(manifest)
    return open_store(out)


@contextmanager
def _nothing_left(out: Path) -> Iterator[None]:
    """Remove a new store into which nothing could be read; a store that an error interrupted stays, to go on."""
    was_there, was_empty = out.exists(), out.is_dir() and not any(out.iterdir())
    try:
        yield
    except InputError:
        if (was_there and not was_empty) or (any((out / "shards").glob("*.arrow")) and _any_stored(out)):
            raise
        shutil.rmtree(out, ignore_errors=True)
        if was_there:
            out.mkdir()
        raise


def _any_stored(out: Path) -> bool:
    return any(not record.reason for records in read_records(out / "shards").values() for record in records)


def _announce(progress: Progress, out: Path, listed: Sequence[Listed], jobs: Sequence[ShardJob], workers: int) -> None:
    for one in listed:
        num_new = sum(len(job.units) for job in jobs if job.source == one.entry.name)
        progress.say(
            f"{one.entry.name} ({one.entry.format}): {len(one.listing.units)} episodes, {num_new} new; "
            f"licence: {one.entry.licence}"
        )
        for line in one.listing.said:
            progress.say(f"{one.entry.name}: {line}")
        progress.problems(one.entry.name, one.listing.skipped)
        progress.problems(one.entry.name, one.listing.notes, verb="noted")
    num_frames = sum(job.num_frames for job in jobs)
    if jobs:
        need, free = estimate_bytes(num_frames, jobs[0].short_side), shutil.disk_usage(out).free
        minutes = num_frames / FRAMES_PER_S / workers / 60
        progress.say(
            f"about {num_frames} frames to store at short side {jobs[0].short_side}: {minutes:.1f} min with {workers} "
            f"workers, {need / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free in {out}"
        )


def _commit(out: Path, manifest: Manifest, listed: Sequence[Listed], progress: Progress) -> Manifest:
    done = _finished(out)
    by_name = {one.entry.name: one for one in listed}
    listings = {name: one.listing for name, one in by_name.items()}
    entries = merge_entries(read_entries(out, manifest), listings, done)
    for name, count in no_longer_listed(entries, listings).items():
        progress.say(
            f"{name}: {count} stored episodes are no longer there; the store keeps them, a new --out would not"
        )
    problems = {name: problems_of(one.listing, done.get(name, {})) for name, one in by_name.items()}
    if not entries:
        first = next((problem for found in problems.values() for problem in found), Problem("it", "holds nothing"))
        raise InputError(
            f"nothing could be read from {', '.join(str(one.root) for one in listed)}: {first.path}: {first.reason}"
        )
    sources = tuple(
        replace(source, skipped=problems[source.name], notes=by_name[source.name].listing.notes)
        if source.name in by_name
        else source
        for source in manifest.sources
    )
    manifest = write_index(out, replace(manifest, sources=sources), entries)
    write_manifest(out, manifest)
    return manifest


def _check(sources: Sequence[StrPath], short_side: int | None, quality: int | None, workers: int | None) -> None:
    if not sources:
        raise InputError("no source given; name at least one folder or file")
    if short_side is not None and not 16 <= short_side <= 4096:
        raise InputError(f"--short-side must be 16 to 4096 pixels, got {short_side}")
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"--quality must be 1 to 100, got {quality}")
    if workers is not None and workers < 1:
        raise InputError(f"--workers must be at least 1, got {workers}")


def _open_or_create(out: Path, short_side: int | None, quality: int | None) -> Manifest:
    if not (out / "manifest.json").exists():
        return Manifest(short_side=short_side or SHORT_SIDE, quality=quality or QUALITY)
    manifest = read_manifest(out)
    made, got = (manifest.short_side, manifest.quality), (short_side, quality)
    if any(new not in (None, old) for old, new in zip(made, got, strict=True)):
        said = " ".join(f"--{name} {new}" for name, new in zip(("short-side", "quality"), got, strict=True) if new)
        raise InputError(
            f"{out} was made with --short-side {manifest.short_side} --quality {manifest.quality}, got {said}; "
            "leave these options out to add to it, or choose another --out"
        )
    return manifest


def _find(root: Path, format: str, labels: Path | None, reading: Reading) -> tuple[Path, str, Listing]:
    name = detect_format(root) if format == "auto" else format
    if not is_utf8(str(root)):
        raise InputError(f"source {spelled(str(root))}: {NOT_UTF8}")
    return root, name, source_class(name)(root, labels, reading).listing()


def _name_sources(
    found: Sequence[tuple[Path, str, Listing]], manifest: Manifest, licence: str | None
) -> tuple[list[Listed], Manifest]:
    listed: list[Listed] = []
    entries = {(entry.path, entry.format): entry for entry in manifest.sources}  # one folder may hold two formats
    for root, format, listing in found:
        entry = entries.get((str(root), format)) or SourceEntry(
            _unique(root, [entry.name for entry in entries.values()]), str(root), format
        )
        known = entry.licence if entry.licence != "unknown" else stated_licence(root)
        entry = replace(entry, columns=listing.columns, licence=licence or known)
        entries[str(root), format] = entry
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
            found = done.setdefault(record.source, {})
            if (
                not record.reason or (record.key, record.fingerprint) not in found
            ):  # what failed may have been read since
                found[record.key, record.fingerprint] = Entry(record, shard)
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
        raise ResourceError(
            f"{out} needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "make room or use a smaller --short-side"
        )


def estimate_bytes(num_frames: int, short_side: int) -> int:
    """Disk space of frames of aspect 16:9."""
    return int(num_frames * (short_side * short_side * 16 / 9 * BYTES_PER_PIXEL + 64))
