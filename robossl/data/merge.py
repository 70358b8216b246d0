"""`robossl merge`: join stores into one. Frames are linked or copied as they are; only the index is written anew."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from robossl.common.atomic_io import atomic_write, locked, raise_disk_full
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.data.index import IndexEntry, read_entries, write_index
from robossl.data.manifest import Manifest, SourceEntry, read_manifest, write_manifest
from robossl.data.parts import parse_part
from robossl.data.settings import describe_settings
from robossl.data.shards import read_records
from robossl.data.store import Store, open_store
from robossl.errors import InputError


def merge(stores: Sequence[StrPath], *, out: StrPath) -> Store:
    """Join stores into one, such as the parts that several machines ingested.

    The frames are not read: their files are linked, or copied to another disk, and the index is written anew. The
    merged parts of an ingest have the content hash of an ingest in one piece. A merge that was interrupted goes on if
    it is run again.

    Args:
        stores: Folders of stores that were made with the same settings (short side, quality, ...).
        out: Folder of the new store.

    Raises:
        InputError: stores have other settings or share an episode, a part is missing, or `out` holds something else.
        ResourceError: the disk is full, or another process is writing to `out`.

    Example:
        >>> import robossl
        >>> for part in ("1/2", "2/2"):
        ...     name = f"stores/part_{part[0]}"
        ...     _ = robossl.ingest("clips", out=name, part=part, short_side=96, workers=1)
        clips (mp4): ...
        >>> robossl.merge(["stores/part_1", "stores/part_2"], out="stores/joined")
        2 stores, ...
        Store(stores/joined: 4 episodes, 245 frames, splits train val, labels scene)
    """
    folders, out = [Path(each) for each in stores], Path(out)
    manifests = {folder: read_manifest(folder) for folder in dict.fromkeys(folders)}
    if len(manifests) < 2:
        raise InputError(f"merge needs two stores or more, got {', '.join(map(str, folders)) or 'none'}")
    _check_finished(manifests)
    _check_parts(manifests)
    settings = _shared_settings(manifests)
    entries = _join_entries(manifests)
    sources = _join_sources(manifests)
    _check_out(out, entries, manifests)
    with locked(out, "ingest"), raise_disk_full(out), Progress(unit="files") as progress:
        (out / "shards").mkdir(exist_ok=True)
        read_records(out / "shards")  # removes what an interrupted merge left unfinished
        used = {(folder, entry.shard) for folder, found in entries.items() for entry in found}
        for folder, shard in sorted(used):
            progress.advance("joined", 1, len(used))
            for suffix in (".arrow", ".units"):  # a shard is valid once its .units file exists
                _place(folder / "shards" / (shard + suffix), out / "shards" / (shard + suffix))
        joined = [entry for found in entries.values() for entry in found]
        manifest = write_index(out, replace(settings, sources=sources), joined)
        write_manifest(out, manifest)
        progress.say(f"{len(manifests)} stores, {manifest.num_episodes} episodes, {manifest.num_frames} frames")
    return open_store(out)


def _check_finished(manifests: Mapping[Path, Manifest]) -> None:
    for folder, manifest in manifests.items():
        if not manifest.index:
            raise InputError(f"{folder} is unfinished: its ingest was interrupted; run the same ingest command again")


def _check_parts(manifests: Mapping[Path, Manifest]) -> None:
    """Check that, if stores are parts, all parts of one count are there, each once."""
    parts = {folder: parse_part(manifest.part) for folder, manifest in manifests.items() if manifest.part}
    if not parts:
        return
    counts = {part.count for part in parts.values()}
    if len(counts) > 1 or len(parts) < len(manifests):
        said = ", ".join(f"{folder} ({manifest.part or 'whole'})" for folder, manifest in manifests.items())
        raise InputError(f"merge takes the parts of one ingest, or whole stores, not both; got {said}")
    numbers = sorted(part.number for part in parts.values())
    (count,) = counts
    if missing := sorted(set(range(1, count + 1)) - set(numbers)):
        said = ", ".join(f"{each}/{count}" for each in missing)
        raise InputError(f"part {said} is missing; ingest it, and name its store too")
    if len(numbers) > count:
        twice = next(each for each in numbers if numbers.count(each) > 1)
        raise InputError(f"part {twice}/{count} is there twice; name each part once")


def _shared_settings(manifests: Mapping[Path, Manifest]) -> Manifest:
    """Return an empty manifest with the settings that all stores share."""
    made = {folder: describe_settings(manifest) for folder, manifest in manifests.items()}
    if len(set(made.values())) > 1:
        said = ", ".join(f"{folder} with {options}" for folder, options in made.items())
        raise InputError(f"the stores were made with other settings: {said}; ingest again what differs")
    first = next(iter(manifests.values()))
    return Manifest(short_side=first.short_side, quality=first.quality, thin=first.thin, frame_hook=first.frame_hook)


def _join_entries(manifests: Mapping[Path, Manifest]) -> dict[Path, list[IndexEntry]]:
    """Return the entries of each store, including dropped duplicates."""
    entries = {folder: read_entries(folder, manifest) for folder, manifest in manifests.items()}
    seen: dict[tuple[str, str], Path] = {}
    for folder, found in entries.items():
        for entry in found:
            name = (entry.record.source, entry.record.key)
            if seen.setdefault(name, folder) != folder:
                raise InputError(
                    f"{seen[name]} and {folder} both hold the episode {'/'.join(name)}; "
                    "merge stores of different sources, or the parts of one ingest"
                )
    return entries


def _join_sources(manifests: Mapping[Path, Manifest]) -> tuple[SourceEntry, ...]:
    """Return the sources of all stores; a source that several of them name becomes one."""
    joined: dict[str, SourceEntry] = {}
    for folder, manifest in manifests.items():
        for source in manifest.sources:
            known = joined.setdefault(source.name, source)
            if (known.format, known.columns) != (source.format, source.columns):
                raise InputError(
                    f"{folder}: the source {source.name} has the format {source.format} with columns "
                    f"{', '.join(source.columns) or 'none'}; another store has {known.format} with "
                    f"{', '.join(known.columns) or 'none'}; rename one folder and ingest it again"
                )
            skipped = tuple(dict.fromkeys((*known.skipped, *source.skipped)))
            notes = tuple(dict.fromkeys((*known.notes, *source.notes)))
            joined[source.name] = replace(known, skipped=skipped, notes=notes)
    return tuple(joined.values())


def _check_out(out: Path, entries: Mapping[Path, list[IndexEntry]], manifests: Mapping[Path, Manifest]) -> None:
    """Check that `out` is new, or holds only what an interrupted merge of these stores left."""
    if out.resolve() in {folder.resolve() for folder in manifests}:
        raise InputError(f"--out {out} is one of the stores; choose another folder")
    if not out.exists() or not any(out.iterdir()):
        return
    shards = {entry.shard for found in entries.values() for entry in found}
    own = ("shards", "index", "manifest.json", ".lock")
    others = [path for path in out.iterdir() if path.name not in own]
    if others or {path.stem for path in (out / "shards").glob("*.units")} - shards:
        raise InputError(f"--out {out} is not empty; choose another folder")


def _place(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it to another disk. A file that is there is kept: its name is a hash of its content."""
    if target.exists():
        return
    with atomic_write(target) as aside:
        with suppress(FileNotFoundError):
            aside.unlink()
        try:
            os.link(source, aside)
        except OSError:
            shutil.copyfile(source, aside)
