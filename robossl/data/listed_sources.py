"""Prepare the sources of an ingest: detect their formats, list their units (episodes), give them unique names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from robossl.common.paths import StrPath
from robossl.data.files import NOT_UTF8, escape_name, is_utf8, stated_licence
from robossl.data.manifest import Manifest, SourceEntry, holds_run, is_store
from robossl.data.parts import Part
from robossl.data.source import Listing, SourceOptions
from robossl.data.source_checks import check_listing
from robossl.data.sources import detect_format, source_class
from robossl.errors import InputError


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source of this ingest: its entry in the manifest, its folder or file, and the list of its units (episodes)."""

    entry: SourceEntry
    root: Path
    listing: Listing


def check_places(sources: Sequence[StrPath], out: Path) -> None:
    """Check that no source is a store, and that `out` is neither a source nor a run.

    Raises:
        InputError: a source is a store, or `out` is a source or a run.
    """
    for source in map(Path, sources):
        if is_store(source):
            raise InputError(f"{source} is a store already; pass it to --data.store, or ingest its videos")
        if source.resolve() == out.resolve():
            raise InputError(f"--out {out} is the source; choose another folder, such as stores/{out.resolve().name}")
    if holds_run(out):
        raise InputError(f"{out} holds a run; choose another --out for the store, such as stores/{out.resolve().name}")


def list_source(root: Path, format: str, labels: Path | None, options: SourceOptions) -> tuple[Path, str, Listing]:
    """Return the root, the format and the units (episodes) of one source.

    Raises:
        InputError: the source cannot be used.
    """
    name = detect_format(root) if format == "auto" else format
    if not is_utf8(str(root)):
        raise InputError(f"source {escape_name(str(root))}: {NOT_UTF8}")
    source = source_class(name)(root, labels, options)
    return root, name, check_listing(source.listing(), source)


def name_sources(
    found: Sequence[tuple[Path, str, Listing]], manifest: Manifest, licence: str | None
) -> tuple[list[ListedSource], Manifest]:
    """Give new sources a name and a licence; return the listed sources, and the manifest with entries for them."""
    listed: list[ListedSource] = []
    # The format is part of the key, because a folder may hold two formats.
    entries = {(entry.path, entry.format): entry for entry in manifest.sources}
    for root, format, listing in found:
        entry = entries.get((str(root), format)) or SourceEntry(
            _unique_name(root, [entry.name for entry in entries.values()]), str(root), format
        )
        known = entry.licence if entry.licence != "unknown" else stated_licence(root)
        entry = replace(entry, columns=listing.columns, licence=licence or known)
        entries[str(root), format] = entry
        listed.append(ListedSource(entry, root, listing))
    return listed, replace(manifest, sources=tuple(entries.values()))


def deal_units(one: ListedSource, part: Part) -> ListedSource:
    """Return the source with the units (episodes) of one part."""
    units = part.deal(one.entry.name, one.listing.units)
    return replace(one, listing=replace(one.listing, units=list(units)))


def _unique_name(root: Path, taken: Sequence[str]) -> str:
    name = root.stem if root.is_file() else root.name
    number = 2
    while name in taken:
        name, number = f"{root.name}-{number}", number + 1
    return name
