"""`robossl convert`: write a store in another format. The stored JPEGs are copied as they are."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robossl.common.atomic_io import atomic_write, locked, raise_disk_full, write_text
from robossl.common.paths import StrPath
from robossl.common.progress import Progress
from robossl.data.store import Store, open_store
from robossl.errors import InputError

SHARD_FRAMES = 10_000  # frames per shard, about; a shard holds whole episodes of one split
_SCHEMA = "robossl.webdataset/1"
_MARK = "convert.json"


def convert(store: StrPath, *, to: Literal["lerobot-v3", "webdataset"], out: StrPath) -> None:
    """Write all episodes of a store in another format, with times, columns, labels and splits.

    webdataset: `SPLIT-000000.tar`, a sample per frame: the JPEG, and a json with `episode`, `time_seconds`, `split`,
    `labels` and `columns`; `robossl ingest` makes the same episodes of it. A run that was interrupted goes on if it is
    run again: each shard is complete or absent.

    lerobot-v3: a LeRobotDataset v3.0 with an h264 video per recording and camera, at one rate; frames that ingest
    dropped are written again, and of the labels only `task` and `camera` are kept. The folder appears once it is
    complete.

    Args:
        store: Folder of the store.
        to: Format to write.
        out: Folder to write to.

    Raises:
        InputError: `store` is no store, `out` holds something else, or LeRobot cannot hold the episodes.
        ResourceError: the disk is full, or another process is writing to `out`.

    Example:
        >>> import robossl
        >>> from robossl.data.convert import convert
        >>> convert("stores/clips", to="webdataset", out="clips_tars")
        clips_tars: 2 shards, 4 episodes, 245 frames
    """
    if to not in ("lerobot-v3", "webdataset"):
        raise InputError(f"--to must be lerobot-v3 or webdataset, got {to!r}")
    opened, out = open_store(store), Path(out)
    if to == "lerobot-v3":
        from robossl.data.convert_lerobot import write_lerobot

        print(write_lerobot(opened, out))
        return
    about = json.dumps({"schema": _SCHEMA, "content_hash": opened.content_hash}, indent=1)
    _check_out(out, about)
    shards = list(_plan(opened))
    with locked(out, "convert"), raise_disk_full(out), Progress(unit="frames") as progress:
        write_text(out / _MARK, about)
        for path in out.glob("*.tmp"):  # left by a run that was killed
            path.unlink()
        for name, episodes in shards:
            if not (out / name).exists():
                _write_shard(opened, episodes, out / name)
            rows = sum(opened.episode_start[each + 1] - opened.episode_start[each] for each in episodes)
            progress.advance("written", int(rows), opened.num_frames)
        progress.say(f"{out}: {len(shards)} shards, {opened.num_episodes} episodes, {opened.num_frames} frames")


def _check_out(out: Path, about: str) -> None:
    """Check that `out` is new, or holds what an interrupted run wrote of the same store."""
    if not out.exists() or (out.is_dir() and {path.name for path in out.iterdir()} <= {".lock"}):
        return
    mark = out / _MARK
    if not mark.is_file() or mark.read_text(encoding="utf-8", errors="replace") != about:
        raise InputError(f"--out {out} is a file, or holds something else than this store; choose another folder")


def _plan(store: Store) -> Iterator[tuple[str, list[int]]]:
    """Yield the name and the episodes of each shard."""
    sizes = np.diff(store.episode_start)
    for split in dict.fromkeys(store.episode_split.tolist()):
        episodes: list[int] = []
        number = 0
        for episode in np.flatnonzero(store.episode_split == split).tolist():
            if episodes and sizes[episodes].sum() + sizes[episode] > SHARD_FRAMES:
                yield f"{_file_name(split)}-{number:06d}.tar", episodes
                episodes, number = [], number + 1
            episodes.append(episode)
        yield f"{_file_name(split)}-{number:06d}.tar", episodes


def _file_name(split: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_." else "_" for letter in split) or "all"


def _write_shard(store: Store, episodes: Sequence[int], path: Path) -> None:
    with atomic_write(path) as aside, tarfile.open(aside, "w:", format=tarfile.PAX_FORMAT) as tar:
        for episode in episodes:
            for number, (row, about) in enumerate(_describe(store, episode)):
                key = f"{episode:06d}_{number:06d}"
                _add(tar, f"{key}.jpg", store.jpeg(row).tobytes())
                _add(tar, f"{key}.json", json.dumps(about, ensure_ascii=False).encode())


def _describe(store: Store, episode: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the row of each frame of an episode, and what its json says."""
    rows = np.arange(store.episode_start[episode], store.episode_start[episode + 1])
    known = dict.fromkeys(name for source in store.manifest.sources for name in source.columns)
    names = [name for name in known if store.has_column(name, np.array([episode]))[0]]
    columns = {name: store.column(name, rows).tolist() for name in names}
    labels = {name: str(store.labels(name)[episode]) for name in store.label_names}
    for number, row in enumerate(rows.tolist()):
        about: dict[str, Any] = {
            "episode": str(store.episode_id[episode]),
            "time_seconds": float(store.time_seconds[row]),
            "split": str(store.episode_split[episode]),
            "labels": {name: value for name, value in labels.items() if value},
            "columns": {name: values[number] for name, values in columns.items()},
        }
        if row == rows[-1]:  # a store keeps no frame that equals the frame before it
            about["end_seconds"] = float(store.end_seconds[episode])
        yield row, about


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
