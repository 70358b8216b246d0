"""`robossl inspect PATH`: what a folder or file holds, in seconds, before it is ingested."""

from __future__ import annotations

import contextlib
import json as json_format
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from robossl.common.counts import format_count
from robossl.common.paths import StrPath
from robossl.data.files import VIDEO_SUFFIXES, stated_licence
from robossl.data.listed_sources import list_source
from robossl.data.manifest import Problem, is_store
from robossl.data.source import Damaged, Listing, Source, SourceOptions, Unit
from robossl.data.sources import source_class
from robossl.data.video import read_header
from robossl.errors import InputError

SCHEMA = "robossl.inspect/1"
SAMPLED = 5  # episodes whose first frames are decoded
FIRST_FRAMES = 3  # frames that are decoded of each of them
MAX_PROBLEMS = 20  # problems that are listed


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source holds. Sizes, rates and codecs are those of a few episodes; the rest is from the whole listing."""

    path: str
    format: str
    num_episodes: int
    num_frames: int  # estimated if counting them needs decoding
    hours: float | None  # None if no frame rate is known, as for photographs
    sizes: tuple[str, ...]  # width x height in pixels
    frames_per_s: tuple[float, ...]
    codecs: tuple[str, ...]
    columns: dict[str, int]  # width of each per-frame column
    labels: dict[str, int]  # number of classes of each label
    splits: dict[str, int]  # number of episodes of each split
    licence: str
    num_skipped: int
    problems: tuple[Problem, ...]  # files that are left out or read with a correction: the first of them
    remarks: tuple[str, ...]  # choices that were made while listing


def inspect(paths: Sequence[StrPath], *, format: str = "auto", json: bool = False) -> None:
    """Print what folders or files hold: format, episodes, hours, sizes, rates, codecs, columns, labels, problems.

    Lists everything, but decodes only the first frames of a few episodes, so it takes seconds.

    Args:
        paths: folders or files that `robossl ingest` could read.
        format: format of the paths, as for `robossl ingest`.
        json: print JSON instead of tables.

    Raises:
        InputError: a path cannot be read as any format.
    """
    found = [inspect_source(Path(path), format=format) for path in paths]
    if not found:
        raise InputError("nothing to inspect; name a folder or file with videos or images")
    if json:
        sources = [asdict(facts) for facts in found]
        sys.stdout.write(json_format.dumps({"schema": SCHEMA, "sources": sources}, indent=1) + "\n")
        return
    for facts in found:
        _print(facts)


def inspect_source(path: Path, *, format: str = "auto") -> SourceFacts:
    """Return what one folder or file holds.

    Raises:
        InputError: the path cannot be read as this format, or it is a store.
    """
    if is_store(path):
        raise InputError(f"{path} is a store already; look at it with robossl info {path}")
    root, name, listing = list_source(path, format, None, SourceOptions())
    units = listing.units
    sample = [units[at] for at in np.unique(np.linspace(0, len(units) - 1, SAMPLED).round().astype(int))]
    source = source_class(name)(root, None, SourceOptions())
    sizes, rates, damaged = _sample(source, sample)
    num_frames = sum(unit.num_frames for unit in units)
    problems = (*damaged, *listing.skipped, *listing.notes)
    return SourceFacts(
        path=os.fspath(path),
        format=name,
        num_episodes=len(units),
        num_frames=num_frames,
        hours=round(num_frames / float(np.median(rates)) / 3600, 4) if rates else None,
        sizes=tuple(dict.fromkeys(sizes)),
        frames_per_s=tuple(sorted({round(rate, 2) for rate in rates})),
        codecs=tuple(sorted({codec for unit in sample for codec in _codecs(root, unit)})),
        columns=dict(listing.columns),
        labels=_count_classes(listing),
        splits=dict(Counter(unit.split for unit in units if unit.split)),
        licence=stated_licence(root),
        num_skipped=len(listing.skipped),
        problems=problems[:MAX_PROBLEMS],
        remarks=listing.remarks,
    )


def _sample(source: Source, units: Sequence[Unit]) -> tuple[list[str], list[float], list[Problem]]:
    """Decode the first frames of units; return their sizes and frame rates, and the units that are damaged."""
    sizes, rates, damaged = [], [], []
    for unit in units:
        # Columns are not needed, and those of a bag lie all over its file.
        pictures = replace(unit, address=unit.address | {"columns": ""}) if "columns" in unit.address else unit
        try:
            first = list(islice(source.frames(pictures), FIRST_FRAMES))
        except Damaged as error:
            damaged.append(Problem(unit.key, str(error)))
            continue
        sizes += [f"{frame.pixels.shape[1]}x{frame.pixels.shape[0]}" for frame in first]
        steps = np.diff([frame.time_seconds for frame in first])
        rates += [1 / float(np.median(steps))] if len(steps) and (steps > 0).all() else []
    return sizes, rates, damaged


def _codecs(root: Path, unit: Unit) -> Iterator[str]:
    folder = root if root.is_dir() else root.parent
    if encoding := unit.address.get("encoding"):
        yield str(encoding)
    for name in (unit.key, *unit.address.values()):
        if isinstance(name, str) and Path(name).suffix.lower() in VIDEO_SUFFIXES and (folder / name).is_file():
            with contextlib.suppress(Damaged):
                yield read_header(folder / name).codec


def _count_classes(listing: Listing) -> dict[str, int]:
    values: dict[str, set[str]] = {}
    for unit in listing.units:
        for label, value in unit.labels.items():
            values.setdefault(label, set()).add(value)
    return {label: len(classes) for label, classes in values.items()}


def _format_duration(hours: float | None) -> str:
    if hours is None:
        return ""
    return f", {hours:.1f} hours" if hours >= 1 else f", {60 * hours:.1f} minutes"


def _print(facts: SourceFacts) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rows = {
        "format": facts.format,
        "episodes": f"{facts.num_episodes:,}",
        "frames": f"about {facts.num_frames:,}{_format_duration(facts.hours)}",
        "size": ", ".join(facts.sizes) or "unknown",
        "frames/s": ", ".join(f"{rate:g}" for rate in facts.frames_per_s) or "none (still images)",
        "codec": ", ".join(facts.codecs),
        "columns": ", ".join(f"{name} ({width})" for name, width in facts.columns.items()) or "none",
        "labels": ", ".join(f"{name} ({num} classes)" for name, num in facts.labels.items()) or "none",
        "splits": ", ".join(f"{name} ({num})" for name, num in facts.splits.items()) or "none",
        "licence": facts.licence,
        "skipped": format_count(facts.num_skipped, "file"),
    }
    table = Table("source", escape(facts.path))
    for name, text in rows.items():
        if text:
            table.add_row(name, escape(text))
    console = Console()
    console.print(table)
    for remark in facts.remarks:
        console.print(escape(remark), soft_wrap=True)
    for problem in facts.problems:
        console.print(escape(f"{problem.path}: {problem.reason}"), soft_wrap=True)
    command = shlex.join(["robossl", "ingest", facts.path, "--out", f"stores/{Path(facts.path).resolve().stem}"])
    console.print(escape(f"next: {command}"), soft_wrap=True)
