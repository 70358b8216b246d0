"""Read the metadata of a LeRobot dataset, v2.0 and v2.1 (jsonl) or v3.0 (parquet), and correct known defects.

The layouts follow huggingface/lerobot, src/lerobot/datasets/utils.py. v2.1 has one data file and one video per episode,
v3.0 has many episodes per file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from robossl.data.files import VIDEO_SUFFIXES, find_files, leaves_root
from robossl.data.manifest import Problem
from robossl.data.sources.lerobot_features import cameras_of, columns_of
from robossl.errors import InputError

VERSIONS = ("v2.0", "v2.1", "v3.0")

# The only placeholders that a path template of info.json may contain.
_FIELD = re.compile(r"\{(\w+)(?::0\d{1,2}d)?\}")
_RANGE = re.compile(r"\s*(\d+)\s*:\s*(\d+)\s*")


@dataclass(frozen=True, slots=True)
class LeRobotVideoLocation:
    """The file that holds an episode's video, and the episode's time range in this file."""

    file: str
    from_seconds: float = 0.0
    to_seconds: float = math.inf


@dataclass(frozen=True, slots=True)
class LeRobotEpisode:
    """One episode as described by the metadata."""

    index: int
    length: int
    task: str
    data_file: str
    videos: dict[str, LeRobotVideoLocation]
    split: str = ""


@dataclass(frozen=True, slots=True)
class LeRobotMetadata:
    """The metadata of a dataset. A wrong path in it is replaced by the path where the file was found."""

    frames_per_s: float
    shared_files: bool  # whether a data file holds many episodes (v3.0)
    cameras: tuple[str, ...]
    columns: dict[str, str]  # name in the store -> name in the data files
    widths: dict[str, int]  # name in the store -> width stated by info.json
    codecs: dict[str, str]
    episodes: list[LeRobotEpisode]
    notes: list[Problem] = field(default_factory=list)


def read_metadata(root: Path) -> LeRobotMetadata:
    """Read the metadata in `root/meta`.

    Raises:
        InputError: info.json or the list of episodes is missing, damaged, or of an unsupported version.
    """
    try:
        info: dict[str, Any] = json.loads((root / "meta" / "info.json").read_text(encoding="utf-8"))
        version = str(info["codebase_version"])
        if version not in VERSIONS:
            raise InputError(f"{root} is LeRobotDataset {version}; supported are {', '.join(VERSIONS)}")
        _refuse_lance(root)
        notes: list[Problem] = []
        shared = version == "v3.0"
        features: dict[str, dict[str, Any]] = info["features"]
        cameras = cameras_of(features, notes)
        columns, widths = columns_of(features, notes)
        rows = list(_episodes_v3(root) if shared else _episodes_v21(root))
        episodes = [
            _parse_episode(info, row, cameras, features)
            for row in sorted(rows, key=lambda row: int(row["episode_index"]))
        ]
        if shared:
            starts = {
                (int(row["episode_index"]), camera)
                for row in rows
                for camera in cameras
                if _seconds(row.get(f"videos/{camera}/from_timestamp")) is not None
            }
            _check_starts(episodes, cameras, starts)
        episodes = _assign_splits(_find_files(root, episodes, notes), info, notes)
        codecs = {camera: str((features[camera].get("info") or {}).get("video.codec") or "") for camera in cameras}
        return LeRobotMetadata(_frames_per_s(info["fps"]), shared, cameras, columns, widths, codecs, episodes, notes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{root} has unusable LeRobot metadata ({type(error).__name__}: {error})") from None


def _refuse_lance(root: Path) -> None:
    """Refuse a data set whose tables are Lance folders instead of parquet files."""
    lance = next((path for pattern in ("*.lance", "*/*.lance") for path in sorted(root.glob(pattern))), None)
    if lance is not None and next(root.glob("data/**/*.parquet"), None) is None:
        raise InputError(
            f"{root} is stored as Lance ({lance.relative_to(root)}), but parquet is read; download that version, "
            "or convert it: pip install pylance, then write lance.dataset(PATH).to_table() to data/ as info.json says"
        )


def _frames_per_s(stated: Any) -> float:
    frames_per_s = float(stated)
    if not 0 < frames_per_s < math.inf:
        raise InputError(f"info.json says fps {stated}; it must be more than 0")
    return frames_per_s


def _seconds(stated: Any) -> float | None:
    """Return a timestamp in seconds, or None if it is missing or not finite."""
    seconds = math.nan if stated is None else float(stated)
    return seconds if math.isfinite(seconds) else None


def _check_starts(episodes: list[LeRobotEpisode], cameras: tuple[str, ...], starts: set[tuple[int, str]]) -> None:
    """Check that episodes that share a video state their start times in it."""
    for camera in cameras:
        by_file: dict[str, list[int]] = {}
        for episode in episodes:
            if camera in episode.videos:
                by_file.setdefault(episode.videos[camera].file, []).append(episode.index)
        for file, indices in by_file.items():
            lacking = [index for index in indices if (index, camera) not in starts]
            if len(indices) > 1 and lacking:
                raise InputError(
                    f"{file} holds {len(indices)} episodes, episode {lacking[0]} states no from_timestamp: which "
                    "frames are its own is unknown; correct meta/episodes"
                )


def _episodes_v21(root: Path) -> Iterator[dict[str, Any]]:
    with open(root / "meta" / "episodes.jsonl", encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _episodes_v3(root: Path) -> Iterator[dict[str, Any]]:
    files = sorted((root / "meta" / "episodes").glob("**/*.parquet"))
    if not files:
        raise InputError(f"{root}/meta/episodes holds no parquet file; was the recording finalized?")
    for file in files:
        table = pq.ParquetFile(file)
        yield from table.read([name for name in table.schema_arrow.names if not name.startswith("stats/")]).to_pylist()


def _parse_episode(
    info: Mapping[str, Any], row: Mapping[str, Any], cameras: tuple[str, ...], features: Mapping[str, Mapping[str, Any]]
) -> LeRobotEpisode:
    index = int(row["episode_index"])
    chunk = index // int(info.get("chunks_size") or 1000)
    place = {"episode_index": index, "episode_chunk": chunk}
    videos = {}
    for camera in cameras:
        if features[camera]["dtype"] != "video":
            continue
        names = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        part = {name: row.get(f"videos/{camera}/{name}") for name in names}
        file = _fill(str(info["video_path"]), place | {"video_key": camera} | part)
        videos[camera] = LeRobotVideoLocation(
            file, _seconds(part["from_timestamp"]) or 0.0, _seconds(part["to_timestamp"]) or math.inf
        )
    data = {name: row.get(f"data/{name}") for name in ("chunk_index", "file_index")}
    tasks = row.get("tasks") or []
    task = "; ".join(map(str, tasks)) if isinstance(tasks, list) else str(tasks)
    return LeRobotEpisode(index, int(row["length"]), task, _fill(str(info["data_path"]), place | data), videos)


def _fill(template: str, values: Mapping[str, Any]) -> str:
    # Allow only plain fields, because str.format would also follow attributes and pad without limit.
    if _FIELD.sub("", template).count("{"):
        raise InputError(f"info.json has a path template that is not understood: {template!r}")
    path = template.format(**values)
    if leaves_root(path):
        raise InputError(f"info.json has a path that leaves the dataset: {path!r}")
    return path


def _find_files(root: Path, episodes: list[LeRobotEpisode], notes: list[Problem]) -> list[LeRobotEpisode]:
    """Correct stated paths that do not exist.

    If exactly one file in another top folder has the same name and subfolders, its path replaces the stated path.
    """
    by_name: dict[str, list[str]] = {}
    moved: dict[tuple[str, str], int] = {}
    for path in find_files(root, VIDEO_SUFFIXES | {".parquet"})[0]:
        by_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)

    def look(stated: str) -> str:
        if (root / stated).exists() or (root / stated).is_symlink():
            return stated
        parts = stated.split("/")
        found = [path for path in by_name.get(parts[-1], []) if set(parts[1:]) <= set(path.split("/"))]
        if len(found) != 1:
            return stated
        tops = (parts[0], found[0].split("/")[0])
        moved[tops] = moved.get(tops, 0) + 1
        return found[0]

    corrected = [
        replace(
            episode,
            data_file=look(episode.data_file),
            videos={camera: replace(part, file=look(part.file)) for camera, part in episode.videos.items()},
        )
        for episode in episodes
    ]
    for (stated, found), count in moved.items():
        notes.append(Problem("meta/info.json", f"says {stated}/, but the files are in {found}/ ({count} files)"))
    return corrected


def _assign_splits(
    episodes: list[LeRobotEpisode], info: Mapping[str, Any], notes: list[Problem]
) -> list[LeRobotEpisode]:
    known = {episode.index for episode in episodes}
    if "total_episodes" in info and int(info["total_episodes"]) != len(known):
        notes.append(Problem("meta/info.json", f"says {info['total_episodes']} episodes, {len(known)} are listed"))
    split_of: dict[int, str] = {}
    for name, text in (info.get("splits") or {}).items():
        match = _RANGE.fullmatch(str(text))
        if match is None:
            notes.append(Problem("meta/info.json", f"split {name}: {text!r} is not understood, needs first:last"))
            continue
        covered = range(int(match[1]), int(match[2]))
        if covered.stop > max(known, default=-1) + 1:
            notes.append(
                Problem("meta/info.json", f"split {name} covers {text}, the last episode is {max(known, default=-1)}")
            )
        for index in known & set(range(covered.start, min(covered.stop, max(known, default=-1) + 1))):
            split_of.setdefault(index, str(name))
    if split_of and len(split_of) < len(known):
        missing = min(known - split_of.keys())
        notes.append(
            Problem(
                "meta/info.json",
                f"splits cover {len(split_of)} of {len(known)} episodes, not {missing}; those have no split",
            )
        )
    return [replace(episode, split=split_of.get(episode.index, "")) for episode in episodes]
