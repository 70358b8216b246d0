"""Ingest: read the files of sources once and write their frames to a store, in parallel.

To continue an interrupted ingest, run it again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from robossl.common.atomic_io import locked, raise_disk_full
from robossl.common.checks import check_positive
from robossl.common.counts import format_count
from robossl.common.cpus import num_cpus
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.common.ray_tasks import map_on_ray
from robossl.data.index import IndexEntry, count_unlisted, merge_entries, problems_of, read_entries, write_index
from robossl.data.ingest_report import IngestReport, check_disk
from robossl.data.jobs import plan_jobs, run_jobs
from robossl.data.labels import NO_LABELS
from robossl.data.listed_sources import ListedSource, check_places, deal_units, list_source, name_sources
from robossl.data.manifest import Manifest, Problem, write_manifest
from robossl.data.parts import parse_part
from robossl.data.settings import check_settings, open_or_create
from robossl.data.shards import read_records
from robossl.data.source import SourceOptions
from robossl.data.store import Store, open_store
from robossl.data.worker import write_shard
from robossl.errors import InputError


def ingest(
    sources: StrPath | Sequence[StrPath],
    *,
    out: StrPath,
    format: str = "auto",
    labels: Literal["auto", "none"] | StrPath = "auto",
    label_columns: tuple[str, ...] | None = None,
    image_folders: Literal["auto", "images", "episodes"] = "auto",
    image_fps: float | None = None,
    licence: str | None = None,
    short_side: int | None = None,
    quality: int | None = None,
    thin: float | None = None,
    frame_hook: str | None = None,
    workers: int | None = None,
    part: str | None = None,
    on: Literal["local", "ray"] = "local",
    strict: bool = False,
) -> Store:
    """Read videos and images once and add their frames to a store; create the store if it is new.

    Episodes that the store already has are not read again. To continue an interrupted ingest, run it again.

    Args:
        sources: folders or files to read: videos, images, parquet tables or tar archives of images, LeRobot datasets.
        out: folder of the store.
        format: format of the sources: auto (detect it), lerobot, mp4 (any video), parquet, webdataset, tar, hdf5, zarr,
            mcap, rosbag, rlds or images.
        labels: csv file with labels. It has a column `path` (of a video, an image or an image folder, relative to the
            source), optionally a column `split` (such as train or val), and one column per label. `auto`: use the csv
            in the source folder, if there is one. `none`: no labels.
        label_columns: the csv columns that are labels. If not given: all columns of the csv that --labels names. If
            the csv was found in the source folder instead: all columns except times and measurements.
        image_folders: how to read a folder of numbered images (0001.jpg, 0002.jpg, ...). `episodes`: each folder is one
            video. `images`: each image stands alone. `auto`: a folder is a video if its name says so (episode_3) or if
            neighbouring images look alike.
        image_fps: frame rate, in frames per second, of numbered images and of HDF5, Zarr and RLDS episodes, which hold
            no times. If not given: the rate that the file states or its format is recorded at, else 10.
        licence: licence of the sources. If not given: the licence stated in the files beside the data.
        short_side: shorter side of stored frames in pixels; larger frames are shrunk, smaller frames kept. If not
            given: the value of the store, or 256 for a new store.
        quality: JPEG quality of stored frames, 1 to 100. If not given: the value of the store, or 90 for a new store.
        thin: drop frames that differ by less than this many grey levels (0 to 255) from the last kept frame of their
            episode, as the mean absolute difference at 32x24 pixels; 0.5 drops still stretches. Their columns are
            dropped too. If not given: the value of the store, or 0 (keep them) for a new store.
        frame_hook: MODULE:FUNCTION, a function that changes each frame before it is stored, such as one that blurs
            faces. It gets RGB pixels, uint8 (h, w, 3), and returns the same shape and type.
        workers: number of worker processes. If not given: one per available CPU.
        part: read only one part of the episodes, such as 3/16 for the third of 16 parts, so that several machines share
            the work. Each part needs its own `out`; `robossl merge` joins them.
        on: where workers run: `local`, or `ray`, the Ray cluster that RAY_ADDRESS names. All its machines must see the
            sources and `out` at the same paths.
        strict: stop with an error if a file must be skipped or corrected.

    Raises:
        InputError: a source or the hook cannot be used, the store has other settings, or `strict` refuses a file.
        ResourceError: the disk is too small, a worker died, or another ingest is writing to the store.

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
    _check(sources, workers)
    check_settings(short_side, quality, thin, frame_hook)
    check_places(sources, out)
    check_positive(image_fps=image_fps)
    options = SourceOptions(label_columns, image_folders, image_fps)
    roots = dict.fromkeys(Path(source).resolve() for source in sources)
    table = None if labels == "auto" else NO_LABELS if labels == "none" else Path(labels)
    dealt = parse_part(part) if part else None
    found = [list_source(root, format, table, options) for root in roots]
    with _removed_if_empty(out), locked(out, "ingest"), raise_disk_full(out):
        (out / "shards").mkdir(exist_ok=True)
        manifest = open_or_create(
            out, part or "", short_side=short_side, quality=quality, thin=thin, frame_hook=frame_hook
        )
        listed, manifest = name_sources(found, manifest, licence)
        if dealt:
            listed = [deal_units(one, dealt) for one in listed]
        if strict:
            _refuse([(one.entry.name, one.listing.skipped) for one in listed])
            _refuse([(one.entry.name, one.listing.notes) for one in listed])
        _add_units(out, manifest, listed, on=on, max_workers=workers or num_cpus(), strict=strict)
    return open_store(out)


def _add_units(
    out: Path,
    manifest: Manifest,
    listed: Sequence[ListedSource],
    *,
    on: Literal["local", "ray"],
    max_workers: int,
    strict: bool,
) -> None:
    """Write the units (episodes) that are not stored yet, then the index and the manifest."""
    finished = _read_finished(out)
    stored = {name: {key for key in found if not found[key].record.reason} for name, found in finished.items()}
    jobs = plan_jobs(out.absolute(), manifest, listed, stored)  # workers may run elsewhere
    num_frames, workers = sum(job.num_frames for job in jobs), min(max_workers, max(1, len(jobs)))
    with Progress(unit="frames") as progress:
        report = IngestReport(progress, out)
        report.plan(listed, jobs, workers)
        check_disk(out, num_frames, manifest.short_side)
        write_manifest(out, manifest)
        report.advance(0, num_frames)
        for job, problems in map_on_ray(write_shard, jobs) if on == "ray" else run_jobs(jobs, workers):
            report.problems(job.source, problems)
            report.advance(job.num_frames, num_frames)
            if strict:
                _refuse([(job.source, problems)])
        report.other_problems()
        manifest = _commit(out, manifest, listed, report)
        report.result(manifest)


@contextmanager
def _removed_if_empty(out: Path) -> Iterator[None]:
    """Remove a new store if the ingest fails with InputError before any unit (episode) is stored.

    The store of an interrupted ingest stays, because the next ingest continues with it.
    """
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


def _commit(out: Path, manifest: Manifest, listed: Sequence[ListedSource], report: IngestReport) -> Manifest:
    """Write the index of everything that is stored now, and the manifest that names this index."""
    finished = _read_finished(out)
    by_name = {one.entry.name: one for one in listed}
    listings = {name: one.listing for name, one in by_name.items()}
    entries = merge_entries(read_entries(out, manifest), listings, finished)
    for name, count in count_unlisted(entries, listings).items():
        report.say(
            f"{name}: kept {format_count(count, 'stored episode')} that the source no longer has; "
            "ingest into a new --out to leave out what is gone"
        )
    problems = {name: problems_of(one.listing, finished.get(name, {})) for name, one in by_name.items()}
    if not entries and not manifest.part:  # a part may have got no episode
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


def _check(sources: Sequence[StrPath], workers: int | None) -> None:
    if not sources:
        raise InputError("no source given; name at least one folder or file")
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}")


def _read_finished(out: Path) -> dict[str, dict[tuple[str, str], IndexEntry]]:
    """Return, for each source, the units (episodes) that earlier jobs finished, by (key, fingerprint)."""
    finished: dict[str, dict[tuple[str, str], IndexEntry]] = {}
    for shard, records in read_records(out / "shards").items():
        for record in records:
            found, key = finished.setdefault(record.source, {}), (record.key, record.fingerprint)
            # If one job could not read an episode and a later job could, keep the record of the later job.
            if not record.reason or key not in found:
                found[key] = IndexEntry(record, shard)
    return finished


def _refuse(problems: Sequence[tuple[str, Sequence[Problem]]]) -> None:
    found = [(source, problem) for source, some in problems for problem in some]
    if found:
        source, first = found[0]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise InputError(f"--strict: {source}: {first.path}: {first.reason}{more}; fix it or run without --strict")
