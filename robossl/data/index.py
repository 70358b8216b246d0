"""The index of a store: which rows of which shards (files of frames) form its episodes.

Entries are ordered by source, then by the key of the unit (what ingest reads as one episode), so a restart of an ingest
does not change the order. `episodes.arrow` has one row per episode, `frames.arrow` one row per frame, and
`dropped.arrow` one row per episode that was dropped because its content was already stored.

Each index has its own folder, and the manifest names the current one. So an open store keeps its index if an ingest
adds frames to the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from robossl.common.atomic_io import atomic_write, sync
from robossl.data.manifest import Manifest, Problem, SourceEntry
from robossl.data.shards import RECORD_SCHEMA, ShardReader, UnitRecord, as_lists, record_fields
from robossl.data.source import Listing

LABEL = "label:"  # prefix of the names of label columns in episodes.arrow


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One stored unit (episode): the shard (file) that holds it, and its current split and labels."""

    record: UnitRecord
    shard: str
    split: str = ""
    labels: dict[str, str] = field(default_factory=dict)


def merge_entries(
    old: Iterable[IndexEntry], listings: Mapping[str, Listing], done: Mapping[str, Mapping[tuple[str, str], IndexEntry]]
) -> list[IndexEntry]:
    """Merge the entries of the previous index with the units (episodes) that the sources list now.

    Units that a source no longer lists stay, because they may be temporarily unavailable. There is one exception: if
    the source now lists the same content under another key, the unit was moved or renamed, so only the new key stays.

    Args:
        old: entries of the previous index, including dropped duplicates.
        listings: what the sources of this ingest list, by source name.
        done: finished units of each source, by (key, fingerprint).
    """
    merged = {(entry.record.source, entry.record.key): entry for entry in old}
    for name, listing in listings.items():
        found = {unit.key: done[name][unit.key, unit.fingerprint] for unit in listing.units}
        contents = {entry.record.hash for entry in found.values() if not entry.record.reason}
        for source, key in list(merged):
            if source == name and (key in found or merged[source, key].record.hash in contents):
                del merged[source, key]
        for unit in listing.units:
            if not found[unit.key].record.reason:
                merged[name, unit.key] = replace(found[unit.key], split=unit.split, labels=unit.labels)
    return list(merged.values())


def count_unlisted(entries: Iterable[IndexEntry], listings: Mapping[str, Listing]) -> dict[str, int]:
    """Count the entries that the sources of this ingest no longer list; return the counts above 0 by source name."""
    keys = {name: {unit.key for unit in listing.units} for name, listing in listings.items()}
    gone = Counter(
        entry.record.source
        for entry in entries
        if entry.record.source in keys and entry.record.key not in keys[entry.record.source]
    )
    return dict(gone)


def split_duplicates(
    entries: Sequence[IndexEntry], sources: Sequence[SourceEntry]
) -> tuple[list[IndexEntry], list[IndexEntry]]:
    """Return the entries to keep, in index order, and the entries whose content equals that of an earlier entry."""
    place = {source.name: number for number, source in enumerate(sources)}
    ordered = sorted(entries, key=lambda entry: (place[entry.record.source], entry.record.key))
    seen: set[str] = set()
    kept: list[IndexEntry] = []
    dropped: list[IndexEntry] = []
    for entry in ordered:
        (dropped if entry.record.hash in seen else kept).append(entry)
        seen.add(entry.record.hash)
    return kept, dropped


def content_hash(kept: Iterable[IndexEntry]) -> str:
    """Return a hash of the keys, splits, labels and stored content of the entries, in index order.

    Paths of sources and names of shards do not change it.
    """
    digest = hashlib.sha256()
    for entry in kept:
        labels = sorted((name, value) for name, value in entry.labels.items() if value)
        digest.update(json.dumps([entry.record.key, entry.split, labels, entry.record.hash]).encode())
    return digest.hexdigest()


def write_index(store: Path, manifest: Manifest, entries: Sequence[IndexEntry]) -> Manifest:
    """Write a new index folder and return the manifest that names this folder."""
    kept, dropped = split_duplicates(entries, manifest.sources)
    digest = content_hash(kept)
    folder = store / "index" / digest[:16]
    folder.mkdir(parents=True, exist_ok=True)
    labels = tuple(dict.fromkeys(name for entry in kept for name in entry.labels))
    _write_table(folder / "episodes.arrow", _episodes_table(kept, labels))
    _write_table(folder / "dropped.arrow", _episodes_table(dropped, tuple({n: 0 for e in dropped for n in e.labels})))
    _write_table(folder / "frames.arrow", _frames_table(store, kept))
    sync(folder.parent)
    splits: dict[str, dict[str, int]] = {}
    for entry in kept:
        counts = splits.setdefault(entry.split, {"episodes": 0, "frames": 0})
        counts["episodes"] += 1
        counts["frames"] += entry.record.num_frames
    return replace(
        manifest,
        index=f"index/{digest[:16]}",
        content_hash=digest,
        num_frames=sum(entry.record.num_frames for entry in kept),
        num_episodes=len(kept),
        num_bytes=sum(entry.record.num_bytes for entry in kept),
        splits=splits,
        label_names=labels,
        sources=tuple(_count(source, kept, dropped) for source in manifest.sources),
    )


def read_entries(store: Path, manifest: Manifest) -> list[IndexEntry]:
    """Read the entries of the current index, including dropped duplicates. Without an index, return an empty list."""
    if not manifest.index:
        return []
    names = list(UnitRecord.__dataclass_fields__)
    entries: list[IndexEntry] = []
    for file in ("episodes.arrow", "dropped.arrow"):
        for row in read_table(store / manifest.index / file).to_pylist():
            labels = {
                name.removeprefix(LABEL): value
                for name, value in row.items()
                if name.startswith(LABEL) and value is not None
            }
            record = UnitRecord(**{name: row[name] for name in names if name in row})
            entries.append(IndexEntry(record, row["shard"], row["split"], labels))
    return entries


def read_table(path: Path) -> pa.Table:
    """Memory-map an Arrow IPC file and return its table."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def problems_of(listing: Listing, done: Mapping[tuple[str, str], IndexEntry]) -> tuple[Problem, ...]:
    """Return what was left out of a source: files that the listing skipped, then episodes that could not be read."""
    records = [
        done[unit.key, unit.fingerprint].record for unit in listing.units if (unit.key, unit.fingerprint) in done
    ]
    return (*listing.skipped, *(Problem(record.key, record.reason) for record in records if record.reason))


def _episodes_table(entries: Sequence[IndexEntry], labels: Sequence[str]) -> pa.Table:
    names = record_fields(entry.record for entry in entries)
    records = {name: [getattr(entry.record, name) for entry in entries] for name in names}
    columns = {
        "id": pa.array([f"{entry.record.source}/{entry.record.key}" for entry in entries], pa.string()),
        "split": pa.array([entry.split for entry in entries], pa.string()),
        "shard": pa.array([entry.shard for entry in entries], pa.string()).dictionary_encode(),
        **{name: pa.array(values, RECORD_SCHEMA.field(name).type) for name, values in records.items()},
        **{LABEL + name: pa.array([entry.labels.get(name) for entry in entries], pa.string()) for name in labels},
    }
    return pa.table(columns).combine_chunks()


def _frames_table(store: Path, kept: Sequence[IndexEntry]) -> pa.Table:
    times = np.zeros(sum(entry.record.num_frames for entry in kept), np.float64)
    sizes = np.zeros((len(times), 2), np.int16)
    by_shard: dict[str, list[tuple[int, UnitRecord]]] = {}
    row = 0
    for entry in kept:
        by_shard.setdefault(entry.shard, []).append((row, entry.record))
        row += entry.record.num_frames
    for shard, places in by_shard.items():
        reader = ShardReader(store / "shards" / f"{shard}.arrow")
        shard_times, shard_sizes = reader.values("time_seconds"), reader.values("hw")
        for start, record in places:
            rows = slice(record.first_row, record.first_row + record.num_frames)
            times[start : start + record.num_frames] = shard_times[rows]
            sizes[start : start + record.num_frames] = shard_sizes[rows]
    return pa.table({"time_seconds": times, "hw": as_lists(sizes)})


def _write_table(path: Path, table: pa.Table) -> None:
    with (
        atomic_write(path) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        # One batch even for a table without rows, because a reader expects one.
        arrays = [column.combine_chunks() for column in table.columns]
        writer.write_batch(pa.record_batch(arrays, schema=table.schema))


def _count(source: SourceEntry, kept: Sequence[IndexEntry], dropped: Sequence[IndexEntry]) -> SourceEntry:
    own = [entry.record for entry in kept if entry.record.source == source.name]
    return replace(
        source,
        num_episodes=len(own),
        num_frames=sum(record.num_frames for record in own),
        duplicate_frames=sum(record.num_duplicates for record in own),
        thinned_frames=sum(record.num_thinned for record in own),
        duplicate_episodes=sum(entry.record.source == source.name for entry in dropped),
    )
