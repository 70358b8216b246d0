"""`robossl info STORE`: print the contents of a store as tables."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from robossl.common.counts import format_count
from robossl.data.manifest import Manifest
from robossl.data.source import GAP_COLUMN
from robossl.data.store import Store, open_store

MAX_CLASSES = 12  # maximum number of classes to print for each label
MAX_PROBLEMS = 20


def info(store: Path) -> None:
    """Print the contents of a store: frames, episodes, splits, labels with class counts, licences, skipped files.

    Args:
        store: a folder written by `robossl ingest`.
    """
    describe(open_store(store))


def describe(store: Store) -> None:
    """Print the tables of an open store."""
    console, manifest = Console(), store.manifest
    console.print(_summary(store))
    console.print(_splits(manifest))
    console.print(_sources(manifest))
    if manifest.label_names:
        console.print(_labels(store))
    problems = [
        (source.name, verb, problem)
        for source in manifest.sources
        for verb, some in (("skipped", source.skipped), ("noted", source.notes))
        for problem in some
    ]
    for name, verb, problem in problems[:MAX_PROBLEMS]:
        console.print(escape(f"{verb} {name}/{problem.path}: {problem.reason}"), soft_wrap=True)
    if len(problems) > MAX_PROBLEMS:
        console.print(f"{len(problems) - MAX_PROBLEMS} more in {escape(str(store.path / 'manifest.json'))}")


def _summary(store: Store) -> Table:
    manifest = store.manifest
    table = Table("store", escape(str(store.path)), title=None)
    table.add_row("frames", str(manifest.num_frames))
    table.add_row("episodes", str(manifest.num_episodes))
    table.add_row("pictures", f"{manifest.num_bytes / 2**20:.0f} MiB, short side at most {manifest.short_side}")
    dropped = format_count(manifest.duplicate_frames, "frame"), format_count(manifest.duplicate_episodes, "episode")
    table.add_row("dropped repetitions", ", ".join(dropped))
    if manifest.thin:
        within = f"less than {manifest.thin:g} grey levels from the last kept frame"
        table.add_row("thinned", f"{format_count(manifest.thinned_frames, 'frame')}, {within}")
    if manifest.frame_hook:
        table.add_row("frame hook", escape(manifest.frame_hook))
    table.add_row("skipped files", str(manifest.num_skipped))
    if (gap := _largest_gap(store)) is not None:
        table.add_row("columns matched by time", f"at most {gap:.3f} s from their frame")
    table.add_row("content hash", manifest.content_hash[:16])
    return table


def _largest_gap(store: Store) -> float | None:
    """Return the largest time in seconds between a frame and its columns; None if no source matches them by time."""
    if not any(GAP_COLUMN in source.columns for source in store.manifest.sources):
        return None
    rows = np.arange(store.manifest.num_frames)
    rows = rows[store.has_column(GAP_COLUMN, store.episode_of(rows))]
    return float(store.column(GAP_COLUMN, rows).max()) if len(rows) else None


def _splits(manifest: Manifest) -> Table:
    table = Table("split", "episodes", "frames")
    for name, counts in manifest.splits.items():
        table.add_row(escape(name) or "(none)", str(counts["episodes"]), str(counts["frames"]))
    return table


def _sources(manifest: Manifest) -> Table:
    table = Table("source", "format", "episodes", "frames", "columns", "licence")
    for source in manifest.sources:
        columns = ", ".join(f"{name} ({width})" for name, width in source.columns.items())
        counts = (str(source.num_episodes), str(source.num_frames))
        table.add_row(escape(source.name), source.format, *counts, escape(columns), escape(source.licence))
    return table


def _labels(store: Store) -> Table:
    table = Table("label", "classes", "episodes of each class")
    for name in store.label_names:
        counts = Counter(str(value) for value in store.labels(name))
        missing = counts.pop("", 0)
        parts = [f"{value} {count}" for value, count in counts.most_common(MAX_CLASSES)]
        parts += ["..."] if len(counts) > MAX_CLASSES else []
        parts += [f"(missing {missing})"] if missing else []
        table.add_row(escape(name), str(len(counts)), escape(", ".join(parts)))
    return table
