"""The layout of a LeRobotDataset v3.0: columns, video, and the contents of `info.json` and `tasks.parquet`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy import ndarray

CHUNK = 1000  # maximum number of files per folder
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
INDEX_DTYPES = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
ARROW: dict[str, pa.DataType] = {
    "float32": pa.float32(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the data set. It holds one vector per frame, or one scalar if its width is 1."""

    name: str
    dtype: str  # float32, int64, bool, string
    width: int = 1
    names: tuple[str, ...] | None = None  # names of the dimensions; None if they have no names


@dataclass(frozen=True, slots=True)
class DatasetPart:
    """The paths of a finished episode's two files.

    `video` is an h264 video. `table` is a parquet file with the columns; its metadata hold statistics of the pixels.
    """

    video: Path
    table: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """The properties that all episodes of a data set share."""

    camera: str  # name of the video's column: observation.images.NAME
    height: int
    width: int
    frames_per_s: int
    columns: tuple[Column, ...]
    robot_type: str
    task: str


def arrow_array(column: Column, values: Sequence[Any] | ndarray) -> pa.Array[Any]:
    """Convert the values of a column (one per frame) to the Arrow type of the column."""
    kind = ARROW[column.dtype]
    if column.dtype == "string":
        return pa.array(values, kind)
    flat = pa.array(np.asarray(values, column.dtype).reshape(-1), kind)
    return flat if column.width == 1 else pa.FixedSizeListArray.from_arrays(flat, column.width)


def info(layout: Layout, num_episodes: int, num_frames: int) -> dict[str, Any]:
    """Return the content of `info.json`."""
    features: dict[str, Any] = {layout.camera: _video_feature(layout)}
    for column in layout.columns:
        names = list(column.names) if column.names else None
        features[column.name] = {"dtype": column.dtype, "shape": [column.width], "names": names}
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in INDEX_DTYPES.items()}
    return {
        "codebase_version": "v3.0",
        "robot_type": layout.robot_type,
        "total_episodes": num_episodes,
        "total_frames": num_frames,
        "total_tasks": 1,
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": layout.frames_per_s,
        "splits": {"train": f"0:{num_episodes}"},
        "data_path": f"data/{PLACE}.parquet",
        "video_path": f"videos/{{video_key}}/{PLACE}.mp4",
        "features": features,
    }


def _video_feature(layout: Layout) -> dict[str, Any]:
    return {
        "dtype": "video",
        "shape": [layout.height, layout.width, 3],
        "names": ["height", "width", "channels"],
        "info": {
            "video.height": layout.height,
            "video.width": layout.width,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "video.is_depth_map": False,
            "video.fps": layout.frames_per_s,
            "video.channels": 3,
            "has_audio": False,
        },
    }


def tasks_table(task: str) -> pa.Table:
    """Return the content of `tasks.parquet`. The task is the pandas index, because lerobot looks for it there."""
    fields = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    pandas = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [
            {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
            for name, kind, dtype in fields
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": [task]})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})
