"""Read the facts of a source (through the contract of sources) or of a store: tables first, then small frames."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import simplejpeg

from robossl.data.doctor.facts import DataFacts, PictureFacts, TableFacts, VideoFacts, reduce_frames
from robossl.data.doctor.lerobot_metadata import check_metadata, read_sizes
from robossl.data.doctor.lerobot_tables import read_lerobot_tables
from robossl.data.files import VIDEO_SUFFIXES, stated_licence
from robossl.data.index import read_entries
from robossl.data.listed_sources import list_source
from robossl.data.manifest import Problem
from robossl.data.pictures import small_frame
from robossl.data.source import Damaged, Listing, SourceOptions, Unit
from robossl.data.source_checks import read_frames
from robossl.data.sources import source_class
from robossl.data.sources.lerobot_meta import read_metadata
from robossl.data.store import Store
from robossl.data.video import Video

Watch = Callable[[str, int, int], None]  # name of the work, how many more are done, how many there are


def read_source_facts(path: Path, *, format: str, max_episodes: int | None, watch: Watch) -> DataFacts:
    """Return the facts of a folder or file that `robossl ingest` could read.

    Args:
        path: the folder or file.
        format: format of the source, or "auto".
        max_episodes: number of episodes to decode, spread evenly; None for all.
        watch: is told how many episodes are done.

    Raises:
        InputError: the path cannot be read as this format.
    """
    root, name, listing = list_source(path, format, None, SourceOptions())
    problems: list[Problem] = []
    tables: list[TableFacts] = []
    frames_per_s, sizes = None, {}
    if name == "lerobot":
        tables, videos, problems = read_lerobot_tables(root, listing.columns)
        frames_per_s, sizes = read_metadata(root).frames_per_s, read_sizes(root)
    else:
        videos = _file_videos(root, listing, watch)
    pictures, read_tables, damaged = _decode_units(root, name, listing, max_episodes, watch)
    broken = {video.episode for video in videos if video.damage}
    return DataFacts(
        path=str(path),
        format=name,
        licences=(stated_licence(root),),
        num_episodes=len(listing.units),
        tables=tables or _with_file_content(root, listing, read_tables),
        videos=videos,
        pictures=pictures,
        skipped=(*listing.skipped, *problems, *(problem for problem in damaged if problem.path not in broken)),
        notes=(*listing.notes, *(check_metadata(root) if name == "lerobot" else ())),
        frames_per_s=frames_per_s,
        sizes=sizes,
    )


def read_store_facts(store: Store, *, max_episodes: int | None, watch: Watch) -> DataFacts:
    """Return the facts of a store. Times and columns are those of all episodes; frames are those of a sample.

    Args:
        store: the store.
        max_episodes: number of episodes to decode, spread evenly; None for all.
        watch: is told how many episodes are done.
    """
    starts = store.episode_start
    cameras = store.labels("camera") if "camera" in store.label_names else np.full(store.num_episodes, "")
    names = list(dict.fromkeys(name for source in store.manifest.sources for name in source.columns))
    have = {name: store.has_column(name, np.arange(store.num_episodes)) for name in names}
    tables = []
    for number, episode in enumerate(store.episode_id):
        rows = np.arange(starts[number], starts[number + 1])
        columns = {name: store.column(name, rows) for name in names if have[name][number]}
        seconds = np.array(store.time_seconds[rows])
        # Ingest drops frames that repeat, also the last ones of an episode.
        if len(seconds) and store.end_seconds[number] > seconds[-1]:
            seconds = np.append(seconds, store.end_seconds[number])
        tables.append(TableFacts(str(episode), str(store.episode_split[number]), None, seconds, columns))
    pictures = []
    chosen = _choose(store.num_episodes, max_episodes)
    for number in chosen:
        rows = np.arange(starts[number], starts[number + 1])
        if len(rows) == 0:
            continue
        height, width = map(int, store.frame_hw[rows[0]])
        pictures.append(
            reduce_frames(
                (
                    str(store.episode_id[number]),
                    str(store.episode_split[number]),
                    str(cameras[number]),
                    f"{width}x{height}",
                ),
                np.stack([small_frame(_decode_jpeg(store, row)) for row in rows]),
                seconds=np.array(store.time_seconds[rows]),
                end_seconds=float(store.end_seconds[number]),
                repeats=_repeats(store, rows),
            )
        )
        watch("frames", 1, len(chosen))
    manifest = store.manifest
    return DataFacts(
        path=str(store.path),
        format="store",
        licences=manifest.licences,
        num_episodes=store.num_episodes,
        tables=[*tables, *_dropped_tables(store)],
        videos=[],
        pictures=pictures,
        skipped=tuple(problem for source in manifest.sources for problem in source.skipped),
        notes=tuple(problem for source in manifest.sources for problem in source.notes),
        is_thinned=manifest.thin > 0,
    )


def _decode_jpeg(store: Store, row: int) -> np.ndarray:
    # libjpeg shrinks by up to 8 while it decodes, which is much faster than to decode all pixels.
    pixels: np.ndarray = simplejpeg.decode_jpeg(store.jpeg(int(row)), "RGB", min_height=48, min_width=64, min_factor=1)
    return pixels


def _repeats(store: Store, rows: np.ndarray) -> np.ndarray:
    pictures = (bytes(store.jpeg(int(row))) for row in rows)
    return np.array([False, *(a == b for a, b in pairwise(pictures))])


def _dropped_tables(store: Store) -> list[TableFacts]:
    """Return one table for each stored or dropped episode whose content came twice, with the content's hash."""
    entries = read_entries(store.path, store.manifest)
    counts = Counter(entry.record.hash for entry in entries)
    return [
        TableFacts(f"{entry.record.source}/{entry.record.key}", entry.split, content=entry.record.hash)
        for entry in entries
        if counts[entry.record.hash] > 1
    ]


def _choose(num: int, most: int | None) -> list[int]:
    if most is None or num <= most:
        return list(range(num))
    return [int(at) for at in np.unique(np.linspace(0, num - 1, most).round())]


def _decode_units(
    root: Path, name: str, listing: Listing, max_episodes: int | None, watch: Watch
) -> tuple[list[PictureFacts], list[TableFacts], list[Problem]]:
    """Decode units; return their small frames and their columns, and the units that are damaged."""
    source = source_class(name)(root, None, SourceOptions())
    pictures, tables, damaged = [], [], []
    chosen = _choose(len(listing.units), max_episodes)
    for number in chosen:
        unit = listing.units[number]
        small: list[np.ndarray] = []
        seconds: list[float] = []
        repeats: list[bool] = []
        size = ""
        columns: dict[str, list[np.ndarray]] = {column: [] for column in listing.columns}
        before = b""
        try:
            for frame in read_frames(source, unit, listing.columns):
                digest = hashlib.blake2b(np.ascontiguousarray(frame.pixels).data, digest_size=16).digest()
                repeats.append(digest == before)
                before = digest
                small.append(small[-1] if repeats[-1] else small_frame(frame.pixels))
                seconds.append(frame.time_seconds)
                size = size or f"{frame.pixels.shape[1]}x{frame.pixels.shape[0]}"
                for column, value in frame.columns.items():
                    columns[column].append(value)
        except Damaged as error:
            damaged.append(Problem(unit.key, str(error)))
        if small:
            camera, times = unit.labels.get("camera", ""), np.array(seconds, np.float64)
            pictures.append(
                reduce_frames(
                    (unit.key, unit.split, camera, size),
                    np.stack(small),
                    seconds=times,
                    end_seconds=float(times[-1]),
                    repeats=np.array(repeats),
                )
            )
            tables.append(
                TableFacts(unit.key, unit.split, None, None, {key: np.stack(rows) for key, rows in columns.items()})
            )
        watch("frames", 1, len(chosen))
    return pictures, tables, damaged


def _file_videos(root: Path, listing: Listing, watch: Watch) -> list[VideoFacts]:
    """Read the frame times of units that are video files."""
    folder = root if root.is_dir() else root.parent
    units = [unit for unit in listing.units if Path(unit.key).suffix.lower() in VIDEO_SUFFIXES]
    videos = []
    for unit in units:
        if (folder / unit.key).is_file():
            videos.append(_file_video(folder / unit.key, unit))
        watch("videos", 1, len(units))
    return videos


def _file_video(path: Path, unit: Unit) -> VideoFacts:
    try:
        video = Video(path)
        try:
            header = video.header
            times = np.array(video.packet_times())
        finally:
            video.close()
    except Damaged as error:
        return VideoFacts(unit.key, damage=str(error))
    return VideoFacts(unit.key, header.num_frames if header.is_counted else None, times)


def _with_file_content(root: Path, listing: Listing, read: Sequence[TableFacts]) -> list[TableFacts]:
    """Return the tables of decoded units, and one for each file that has as many bytes as another, with its hash."""
    folder = root if root.is_dir() else root.parent
    by_size: dict[int, list[Unit]] = {}
    for unit in listing.units:
        if (folder / unit.key).is_file():
            by_size.setdefault((folder / unit.key).stat().st_size, []).append(unit)
    twins = [unit for units in by_size.values() if len(units) > 1 for unit in units]
    return [
        *read,
        *(
            TableFacts(unit.key, unit.split, content=hashlib.sha256((folder / unit.key).read_bytes()).hexdigest())
            for unit in twins
        ),
    ]
