"""Small LeRobot data sets whose every frame and row says its number, to be broken in one place each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CAMERA = "observation.images.top"
FPS = 10


def grey_video(path: Path, codes: Sequence[int], *, places: Sequence[int] | None = None, bf: int = 0, **stream: Any):
    """Frame k is grey of a level that says codes[k], shown at places[k] tenths of a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        made = container.add_stream("libx264", rate=FPS, options={"qp": "0", "g": "4", "bf": str(bf)})
        made.width, made.height, made.pix_fmt = 64, 48, stream.get("pix_fmt", "yuv420p")
        for number, code in enumerate(codes):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * code + 3, np.uint8), format="rgb24")
            frame.pts, frame.time_base = (number if places is None else places[number]), Fraction(1, FPS)
            container.mux(made.encode(frame))
        container.mux(made.encode())


def code_of(pixels: np.ndarray) -> int:
    """The code of a frame of `grey_video`."""
    return round((float(pixels.mean()) - 3) / 5)


def write_v3(
    root: Path,
    lengths: Sequence[int],
    *,
    starts: Sequence[float] | None = None,
    ends: Sequence[float | None] | None = None,
    features: dict[str, Any] | None = None,
    columns: Callable[[int], dict[str, pa.Array[Any]]] | None = None,
    codes: Sequence[int] | None = None,
    places: Sequence[int] | None = None,
    bf: int = 0,
) -> Path:
    """A v3.0 data set of one data file and one video; state is (episode, frame); times are in frames."""
    grey_video(root / f"videos/{CAMERA}/chunk-000/file-000.mp4", codes or range(sum(lengths)), places=places, bf=bf)
    episode, index = np.repeat(range(len(lengths)), lengths), np.concatenate([np.arange(n) for n in lengths])
    first = np.concatenate([[0], np.cumsum(lengths)])
    starts, ends = list(first[:-1] if starts is None else starts), list(first[1:] if ends is None else ends)
    rows = [
        {"episode_index": i, "tasks": ["lift"], "length": n, "data/chunk_index": 0, "data/file_index": 0,
         f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": 0,
         f"videos/{CAMERA}/from_timestamp": starts[i] / FPS,
         f"videos/{CAMERA}/to_timestamp": None if ends[i] is None else ends[i] / FPS}
        for i, n in enumerate(lengths)
    ]  # fmt: skip
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), root / "meta/episodes/chunk-000/file-000.parquet")
    write_rows(root / "data/chunk-000/file-000.parquet", episode, index, columns)
    write_info(root, "v3.0", len(lengths), features, "chunk-{chunk_index:03d}", "file-{file_index:03d}")
    return root


def write_v21(root: Path, length: int, *, codes: Sequence[int], places: Sequence[int] | None = None) -> Path:
    """A v2.1 data set of one episode."""
    grey_video(root / f"videos/chunk-000/{CAMERA}/episode_000000.mp4", codes, places=places)
    (root / "meta").mkdir(parents=True)
    line = json.dumps({"episode_index": 0, "tasks": ["lift"], "length": length})
    (root / "meta/episodes.jsonl").write_text(line + "\n")
    write_rows(root / "data/chunk-000/episode_000000.parquet", np.zeros(length, int), np.arange(length), None)
    write_info(root, "v2.1", 1, None, "chunk-{episode_chunk:03d}", "episode_{episode_index:06d}")
    return root


def write_rows(path: Path, episode: np.ndarray, index: np.ndarray, columns: Any) -> None:
    """A data file."""
    path.parent.mkdir(parents=True)
    state = pa.array([[float(e), float(i)] for e, i in zip(episode, index, strict=True)], pa.list_(pa.float32(), 2))
    table = {"observation.state": state, "timestamp": pa.array(index / FPS, pa.float32()), "frame_index": index}
    table |= {"episode_index": episode, **(columns(len(index)) if columns else {})}
    pq.write_table(pa.table(table), path)


def write_info(root: Path, version: str, num: int, features: dict[str, Any] | None, chunk: str, file: str) -> None:
    """`meta/info.json`."""
    video = f"videos/{{video_key}}/{chunk}" if version == "v3.0" else f"videos/{chunk}/{{video_key}}"
    camera = {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]}
    state = {"dtype": "float32", "shape": [2], "names": ["episode", "frame"]}
    info = {
        "codebase_version": version, "fps": FPS, "total_episodes": num, "splits": {"train": f"0:{num}"},
        "data_path": f"data/{chunk}/{file}.parquet", "video_path": f"{video}/{file}.mp4",
        "features": {CAMERA: camera, "observation.state": state, **(features or {})},
    }  # fmt: skip
    (root / "meta/info.json").write_text(json.dumps(info))
