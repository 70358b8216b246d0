"""The manifest of a store: its contents, sources and licences, and which files were left out and why."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from robossl.common.atomic_io import atomic_write
from robossl.errors import InputError

SCHEMA = "robossl.store/1"
_STORES_SAID = 3  # largest number of stores that a message suggests


@dataclass(frozen=True, slots=True)
class Problem:
    """A file or archive member that was left out, or read with a correction, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One ingested source, with its numbers of episodes, frames and dropped frames."""

    name: str  # name of the source's folder or file, made unique in the store; episode ids start with it
    path: str
    format: str
    licence: str = "unknown"
    columns: dict[str, int] = field(default_factory=dict)  # width of each per-frame column
    num_episodes: int = 0
    num_frames: int = 0
    duplicate_frames: int = 0
    duplicate_episodes: int = 0
    thinned_frames: int = 0
    skipped: tuple[Problem, ...] = ()
    notes: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `manifest.json`.

    `index` is the folder of the current index; it is "" until the first ingest has finished.
    """

    short_side: int
    quality: int
    sources: tuple[SourceEntry, ...] = ()
    index: str = ""
    content_hash: str = ""
    num_frames: int = 0
    num_episodes: int = 0
    num_bytes: int = 0  # size of the stored pictures
    splits: dict[str, dict[str, int]] = field(default_factory=dict)  # name of the split -> {"episodes": e, "frames": n}
    label_names: tuple[str, ...] = ()
    thin: float = 0.0  # frames that differ by fewer grey levels from the last kept frame are dropped; 0: none
    frame_hook: str = ""  # MODULE:FUNCTION that changed each frame before it was stored
    part: str = ""  # such as "3/16" if the store holds one part of an ingest

    @property
    def licences(self) -> tuple[str, ...]:
        """Distinct licences of the sources, in source order."""
        return tuple(dict.fromkeys(source.licence for source in self.sources))

    @property
    def duplicate_frames(self) -> int:
        """Number of frames dropped because they equal the previous frame."""
        return sum(source.duplicate_frames for source in self.sources)

    @property
    def thinned_frames(self) -> int:
        """Number of frames dropped because they nearly equal the last kept frame."""
        return sum(source.thinned_frames for source in self.sources)

    @property
    def duplicate_episodes(self) -> int:
        """Number of episodes and images dropped because their content was already stored."""
        return sum(source.duplicate_episodes for source in self.sources)

    @property
    def num_skipped(self) -> int:
        """Number of files and archive members that were left out."""
        return sum(len(source.skipped) for source in self.sources)


def read_manifest(store: Path) -> Manifest:
    """Read `store/manifest.json`.

    Raises:
        InputError: the folder is not a store, or this version does not know its schema.
    """
    path = store / "manifest.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        schema = content.pop("schema")
    except FileNotFoundError:
        if kind := _other_folder(store):
            raise InputError(f"{store} is {kind}") from None
        if inside := _stores_in(store):
            raise InputError(f"{store} is not a store, but holds some; did you mean {' or '.join(inside)}?") from None
        if store.is_dir() and any(store.iterdir()):
            made = f"robossl ingest {store} --out stores/{store.resolve().name}, and pass the store"
            raise InputError(f"{store} is not a store (no manifest.json); make a store from it with: {made}") from None
        raise InputError(
            f"{store} is not a store (no manifest.json); make one with: robossl ingest SOURCE --out {store}"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); ingest again into a new folder") from None
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}, this version reads {SCHEMA!r}; "
            "ingest again or use the version that wrote it"
        )
    try:
        return replace(
            Manifest(**content),
            sources=tuple(_source(entry) for entry in content["sources"]),
            label_names=tuple(content["label_names"]),
        )
    except (TypeError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}); ingest again into a new folder") from None


def is_store(folder: Path) -> bool:
    """Return whether a folder holds a store, even if the first ingest into it did not finish."""
    return (folder / "manifest.json").is_file() and (folder / "shards").is_dir()


def holds_run(folder: Path) -> bool:
    """Return whether `robossl pretrain` wrote a folder."""
    return (folder / "config.yaml").is_file() and (folder / "metrics.jsonl").is_file()


def _stores_in(folder: Path) -> list[str]:
    found = sorted(path.parent for path in folder.glob("*/manifest.json") if is_store(path.parent))
    return [str(path) for path in found[:_STORES_SAID]]


def _other_folder(path: Path) -> str:
    """Return what a folder is and what describes it; "" if it is no run, no encoder and no exported model."""
    if holds_run(path):
        return f"a run, not a store; robossl report {shlex.quote(str(path))} writes a page about it"
    if (path / "encoder.json").is_file():
        return f"an encoder, not a store; {path / 'encoder.json'} describes it"
    cards = sorted([*path.glob("card.json"), *path.glob("*/card.json")])
    return f"an exported model, not a store; {cards[-1]} describes it" if cards else ""


def write_manifest(store: Path, manifest: Manifest) -> None:
    """Replace `store/manifest.json` atomically."""
    content = {"schema": SCHEMA, **asdict(manifest)}
    # Earlier versions do not know these fields.
    for name in ("part", "thin", "frame_hook"):
        if not content[name]:
            del content[name]
    for source in content["sources"]:
        if not manifest.thin:
            del source["thinned_frames"]
    with atomic_write(store / "manifest.json") as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def _source(entry: dict[str, Any]) -> SourceEntry:
    problems = {name: tuple(Problem(**problem) for problem in entry[name]) for name in ("skipped", "notes")}
    return SourceEntry(**{**entry, **problems})
