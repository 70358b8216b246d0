"""Read the tables and the video times of all episodes of a LeRobot data set; decode nothing."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Float64
from numpy import ndarray

from robossl.data.doctor.facts import TableFacts, VideoFacts
from robossl.data.files import unreadable_reason
from robossl.data.manifest import Problem
from robossl.data.source import Damaged
from robossl.data.sources.lerobot_columns import read_matrix
from robossl.data.sources.lerobot_meta import LeRobotEpisode, LeRobotMetadata, read_metadata
from robossl.data.video import Video


class _Stream(NamedTuple):
    """What a video file states about its frames."""

    seconds: Float64[ndarray, " n"]
    size: str  # width x height in pixels
    damage: str = ""


def read_lerobot_tables(
    root: Path, widths: Mapping[str, int]
) -> tuple[list[TableFacts], list[VideoFacts], list[Problem]]:
    """Return the rows of every episode, the frame times of every camera, and what cannot be read.

    Args:
        root: folder of the data set.
        widths: width of each column, by its name in the store.
    """
    dataset = read_metadata(root)
    tables: list[TableFacts] = []
    videos: list[VideoFacts] = []
    problems: list[Problem] = []
    files: tuple[str, pa.Table | None] = ("", None)
    streams: dict[str, _Stream] = {}
    for episode in dataset.episodes:
        if unreadable_reason(root, episode.data_file):
            continue  # the listing names it
        if files[0] != episode.data_file:
            try:
                files = (episode.data_file, _read_rows(root / episode.data_file, dataset))
            except (OSError, pa.ArrowException) as error:
                files = (episode.data_file, None)
                problems.append(Problem(episode.data_file, f"cannot be read ({error})"))
        if files[1] is None:
            continue
        try:
            table = _table_facts(files[1], episode, dataset, widths)
        except Damaged as error:
            problems.append(Problem(_name(episode), str(error)))
            continue
        tables.append(table)
        for camera, place in episode.videos.items():
            if not unreadable_reason(root, place.file):
                if place.file not in streams:
                    streams[place.file] = _read_stream(root / place.file)
                videos.append(_video_facts(streams[place.file], episode, camera, table, dataset))
    return tables, videos, problems


def _name(episode: LeRobotEpisode) -> str:
    return f"episode_{episode.index:06d}"


def _read_rows(path: Path, dataset: LeRobotMetadata) -> pa.Table:
    file = pq.ParquetFile(path)
    wanted = ["episode_index", "frame_index", "timestamp", *dataset.columns.values()]
    return file.read([name for name in dict.fromkeys(wanted) if name in file.schema_arrow.names])


def _table_facts(
    rows: pa.Table, episode: LeRobotEpisode, dataset: LeRobotMetadata, widths: Mapping[str, int]
) -> TableFacts:
    if "episode_index" in rows.column_names:
        rows = rows.filter(pc.field("episode_index") == episode.index)
    columns, digest = {}, hashlib.sha256()
    for name, width in widths.items():
        column = dataset.columns[name]
        if column not in rows.column_names:
            raise Damaged(f"column {column} is missing")
        if rows.num_rows:
            columns[name] = read_matrix(name, rows[column], width)
            digest.update(columns[name].tobytes())
    seconds = rows["timestamp"].to_numpy().astype(np.float64).reshape(-1) if "timestamp" in rows.column_names else None
    moves = any(len(np.unique(values, axis=0)) > 1 for values in columns.values())
    return TableFacts(
        _name(episode), episode.split, episode.length, seconds, columns, digest.hexdigest() if moves else ""
    )


def _read_stream(path: Path) -> _Stream:
    try:
        video = Video(path)
        try:
            height, width = video.hw
            return _Stream(np.array(video.packet_times()), f"{width}x{height}")
        finally:
            video.close()
    except Damaged as error:
        return _Stream(np.zeros(0), "", str(error))


def _video_facts(
    stream: _Stream,
    episode: LeRobotEpisode,
    camera: str,
    table: TableFacts,
    dataset: LeRobotMetadata,
) -> VideoFacts:
    camera_name = camera.removeprefix("observation.images.").removeprefix("observation.")
    name = f"{_name(episode)}/{camera_name}"
    if stream.damage:
        return VideoFacts(name, damage=stream.damage)
    times = stream.seconds
    place, half = episode.videos[camera], 0.5 / dataset.frames_per_s
    length = len(table.seconds) if table.seconds is not None else episode.length
    if dataset.shared_files:
        end = place.to_seconds
        end = place.from_seconds + length / dataset.frames_per_s if end == math.inf else end
        times = times[(times >= place.from_seconds - half) & (times < end - half)]
    rows = None if table.seconds is None else table.seconds + place.from_seconds
    return VideoFacts(name, length, times, rows, camera=camera_name, size=stream.size)
