"""Write a store as a LeRobotDataset v3.0: a data file per recording, and a video per recording and camera.

Frames that ingest dropped, because they equal the frame before them, are written again, so times are even.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg
from numpy import ndarray

from robossl.common.atomic_io import raise_disk_full
from robossl.common.progress import Progress
from robossl.data.store import Store
from robossl.errors import InputError

CHUNK = 1000  # files per folder
_PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
_NAMES = {"state": "observation.state"}  # the names of LeRobot
_INDEX = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
_ROUNDING = 2e-4  # how far a whole rate may be from the times, as a share; 30000/1001 is farther from 30
_OFF_GRID = 0.1  # how far a time may be from the grid of the rate, in frames


@dataclass(frozen=True, slots=True)
class StoredRecording:
    """The episodes of a store, by camera, that were recorded at the same time."""

    cameras: dict[str, int]
    split: str
    task: str


def write_lerobot(store: Store, out: Path) -> str:
    """Write all episodes to a new folder, which appears once it is complete; return a line about it.

    Raises:
        InputError: `out` exists, or episodes differ in rate, size, cameras or columns.
        ResourceError: the disk is full.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out {out} is not empty; choose another folder")
    recordings = _recordings(store)
    names = list(dict.fromkeys(name for source in store.manifest.sources for name in source.columns))
    names = [name for name in names if store.has_column(name, np.arange(store.num_episodes)).all()]
    rate = _shared_rate(store)
    sizes = _sizes(store, recordings)
    aside = out.with_name(f"{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    rows: list[dict[str, Any]] = []
    tables: list[pa.Table] = []
    tasks = list(dict.fromkeys(recording.task for recording in recordings))
    with raise_disk_full(out.parent), Progress(unit="recordings") as progress:
        for number, recording in enumerate(recordings):
            place = {"chunk_index": number // CHUNK, "file_index": number % CHUNK}
            grids = {camera: _grid(store, episode, rate) for camera, episode in recording.cameras.items()}
            length = min(map(len, grids.values()))  # a camera may have stopped before the others
            index = next(iter(grids.values()))[:length]
            for camera, grid in grids.items():
                file = _file(aside, f"videos/observation.images.{camera}", place, ".mp4")
                _write_video(store, grid[:length], file, rate)
            start = rows[-1]["dataset_to_index"] if rows else 0
            table = _table(store, index, names, number, start, tasks.index(recording.task), rate)
            pq.write_table(table, _file(aside, "data", place, ".parquet"))
            tables.append(table.select([_NAMES.get(name, name) for name in names]))
            rows.append(_row(number, start, len(index), recording, place, rate))
            progress.advance("written", 1, len(recordings))
        pq.write_table(pa.Table.from_pylist(rows), _file(aside, "meta/episodes", dict.fromkeys(place, 0), ".parquet"))
        pq.write_table(_tasks(tasks), aside / "meta" / "tasks.parquet")
        about = _info(store, recordings, rows, tasks, sizes, names, rate)
        (aside / "meta" / "info.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        stats = _statistics(pa.concat_tables(tables))
        (aside / "meta" / "stats.json").write_text(json.dumps(stats, indent=1), encoding="utf-8")
        if out.exists():
            out.rmdir()
        os.replace(aside, out)
    return f"{out}: {len(recordings)} episodes, {rows[-1]['dataset_to_index']} frames at {float(rate):g} frames/s"


def _recordings(store: Store) -> list[StoredRecording]:
    """Group the episodes by the labels `recording` and `camera`, in the order of their splits."""
    known = {name: store.labels(name) for name in ("recording", "camera", "task") if name in store.label_names}
    found: dict[tuple[str, str], StoredRecording] = {}
    for episode, name in enumerate(store.episode_id.tolist()):
        label = {key: str(values[episode]) for key, values in known.items()}
        source = name.split("/")[0]
        key = (source, label.get("recording") or name)
        camera = (label.get("camera") or "video").replace("/", ".")
        fresh = StoredRecording({}, str(store.episode_split[episode]), label.get("task", ""))
        found.setdefault(key, fresh).cameras[camera] = episode
    cameras = {tuple(sorted(recording.cameras)) for recording in found.values()}
    if len(cameras) > 1:
        said = " and ".join(",".join(names) for names in sorted(cameras)[:2])
        raise InputError(
            f"recordings have different cameras ({said}), but LeRobot needs the same in all; use webdataset"
        )
    return sorted(found.values(), key=lambda recording: recording.split)


def _shared_rate(store: Store) -> Fraction:
    steps = np.diff(store.time_seconds)
    steps = steps[(np.diff(store.episode_of(np.arange(store.num_frames))) == 0) & (steps > 0)]
    if not len(steps):
        raise InputError(f"{store.path} holds single images, but LeRobot needs episodes; use --to webdataset")
    # Steps are multiples of the shortest, for ingest drops frames; the sum is exact where single times are rounded.
    per_second = float(np.rint(steps / steps.min()).sum() / steps.sum())
    whole = round(per_second)
    is_whole = whole > 0 and abs(per_second / whole - 1) < _ROUNDING
    rate = Fraction(whole) if is_whole else Fraction(per_second).limit_denominator(1001)
    places = store.time_seconds * float(rate)
    off = np.abs(places - np.rint(places))
    if off.max() > _OFF_GRID:
        episode = store.episode_id[store.episode_of(np.array([off.argmax()]))[0]]
        raise InputError(
            f"{episode} is not at {float(rate):g} frames/s, but LeRobot needs one rate; use --to webdataset"
        )
    return rate


def _sizes(store: Store, recordings: Sequence[StoredRecording]) -> dict[str, tuple[int, int]]:
    sizes: dict[str, set[tuple[int, int]]] = {}
    for recording in recordings:
        for camera, episode in recording.cameras.items():
            height, width = store.frame_hw[store.episode_start[episode]].tolist()
            sizes.setdefault(camera, set()).add((height, width))
    for camera, found in sizes.items():
        if len(found) > 1:
            said = ", ".join(f"{width}x{height}" for height, width in sorted(found))
            raise InputError(f"pictures of {camera} have sizes {said}, but LeRobot needs one; use --to webdataset")
    return {camera: next(iter(found)) for camera, found in sizes.items()}


def _grid(store: Store, episode: int, rate: Fraction) -> ndarray:
    """Return the row of the frame that is seen at each tick of the rate."""
    first, end = store.episode_start[episode : episode + 2]
    ticks = np.arange(round(float(store.end_seconds[episode] * rate)) + 1)
    places = np.rint(store.time_seconds[first:end] * float(rate))
    return np.asarray(first + np.searchsorted(places, ticks, side="right") - 1)


def _file(root: Path, folder: str, place: dict[str, int], suffix: str) -> Path:
    path = root / folder / (_PLACE.format(**place) + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_video(store: Store, rows: ndarray, path: Path, rate: Fraction) -> None:
    height, width = store.frame_hw[rows[0]].tolist()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "g": "2", "bf": "0"})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if width % 2 or height % 2 else "yuv420p"
        for number, row in enumerate(rows.tolist()):
            pixels = simplejpeg.decode_jpeg(store.jpeg(row), "RGB")
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _table(
    store: Store, index: ndarray, names: Sequence[str], number: int, start: int, task: int, rate: Fraction
) -> pa.Table:
    frames = np.arange(len(index))
    columns: dict[str, Any] = {}
    for name in names:
        values = store.column(name, index)
        flat = pa.array(values.reshape(-1), pa.float32())
        width = values.shape[1]
        columns[_NAMES.get(name, name)] = flat if width == 1 else pa.FixedSizeListArray.from_arrays(flat, width)
    columns |= {
        "timestamp": pa.array((frames / float(rate)).astype(np.float32)),
        "frame_index": frames,
        "episode_index": np.full(len(index), number),
        "index": start + frames,
        "task_index": np.full(len(index), task),
    }
    return pa.table(columns)


def _row(
    number: int, start: int, length: int, recording: StoredRecording, place: dict[str, int], rate: Fraction
) -> dict[str, Any]:
    row: dict[str, Any] = {"episode_index": number, "tasks": [recording.task], "length": length}
    row |= {f"data/{name}": value for name, value in place.items()}
    row |= {f"meta/episodes/{name}": 0 for name in place}
    for camera in recording.cameras:
        key = f"videos/observation.images.{camera}"
        row |= {f"{key}/{name}": value for name, value in place.items()}
        row |= {f"{key}/from_timestamp": 0.0, f"{key}/to_timestamp": length / float(rate)}
    return row | {"dataset_from_index": start, "dataset_to_index": start + length}


def _tasks(tasks: Sequence[str]) -> pa.Table:
    """Return tasks.parquet. The task is the pandas index, because lerobot looks for it there."""
    fields = [("task_index", "int64", "int64"), ("task", "unicode", "object")]
    described = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": dtype, "metadata": None}
        for name, kind, dtype in fields
    ]
    pandas = {"index_columns": ["task"], "column_indexes": [], "columns": described, "pandas_version": "2.0.0"}
    pandas["creator"] = {"library": "pyarrow", "version": pa.__version__}
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": list(tasks)})
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _info(
    store: Store, recordings: Sequence[StoredRecording], rows: Sequence[dict[str, Any]], tasks: Sequence[str],
    sizes: dict[str, tuple[int, int]], names: Sequence[str], rate: Fraction,
) -> dict[str, Any]:  # fmt: skip
    features: dict[str, Any] = {
        f"observation.images.{camera}": {
            "dtype": "video",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.codec": "h264", "video.fps": float(rate), "video.is_depth_map": False, "has_audio": False},
        }
        for camera, (height, width) in sizes.items()
    }
    for name in names:
        width = store.column(name, np.array([0])).shape[1]
        features[_NAMES.get(name, name)] = {"dtype": "float32", "shape": [width], "names": None}
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _INDEX.items()}
    features["task_index"] = {"dtype": "int64", "shape": [1], "names": None}
    splits = [recording.split for recording in recordings]
    return {
        "codebase_version": "v3.0",
        "robot_type": "unknown",
        "total_episodes": len(rows),
        "total_frames": rows[-1]["dataset_to_index"],
        "total_tasks": len(tasks),
        "chunks_size": CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate.denominator == 1 else float(rate),
        "splits": {
            split: f"{splits.index(split)}:{splits.index(split) + splits.count(split)}"
            for split in dict.fromkeys(splits)
            if split
        },
        "data_path": f"data/{_PLACE}.parquet",
        "video_path": f"videos/{{video_key}}/{_PLACE}.mp4",
        "features": features,
    }


def _statistics(table: pa.Table) -> dict[str, dict[str, list[float]]]:
    found = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        flat = column.flatten() if isinstance(column, pa.FixedSizeListArray) else column
        matrix = flat.to_numpy(zero_copy_only=False).astype(np.float64).reshape(len(table), -1)
        found[name] = {each: getattr(matrix, each)(axis=0).tolist() for each in ("min", "max", "mean", "std")}
        found[name]["count"] = [len(table)]
    return found
