"""Parts: finished episodes on disk that are not yet in the data set.

A part is a video and a table. The table is written last, so a part without its table is not valid.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from numpy import ndarray

from robossl_envs.lerobot_layout import Column, DatasetPart, arrow_array

# g: Every second frame is a key frame, so that any frame can be decoded fast.
# bf: There are no B-frames, so that packets are stored in display order.
# mbtree: x264's macroblock tree is off, because with it the encoded bytes depend on earlier contents of memory.
# With the macroblock tree, 75 of 4,800 encodings of one episode differed; without it, none did.
# crf: With the tree off, crf 20 gives the file size and the PSNR that crf 18 gives with the tree on.
X264 = {"g": "2", "bf": "0", "crf": "20", "mbtree": "0", "preset": "veryfast"}
# The pixel statistics use every 10th frame, and every 2nd row and column of its pixels.
STATS_EVERY, STATS_STRIDE = 10, 2


class PartWriter:
    """Encodes the frames of an episode as they arrive; `finish` writes the part (video and table) to disk."""

    def __init__(self, *, frames_per_s: int, height: int, width: int) -> None:
        self._video = io.BytesIO()
        self._container = av.open(self._video, "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=Fraction(frames_per_s), options=X264)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        # One thread makes the encoded bytes reproducible. More would not help, because each core has its own worker.
        self._stream.codec_context.thread_count = 1
        self._pixels = PixelStats()
        self._rows: list[Mapping[str, Any]] = []

    def add(self, frame: UInt8[ndarray, "h w 3"], row: Mapping[str, Any]) -> None:
        """Add one frame and its row of the table (a value for each column)."""
        if len(self._rows) % STATS_EVERY == 0:
            self._pixels.add(frame)
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        self._rows.append(row)

    def finish(self, folder: Path, number: int, columns: Sequence[Column]) -> int:
        """Write the episode and return its number of frames; the table is written last and makes the part valid."""
        self._container.mux(self._stream.encode())
        self._container.close()
        arrays = {column.name: arrow_array(column, [row[column.name] for row in self._rows]) for column in columns}
        table = pa.table(arrays).replace_schema_metadata({"pixels": json.dumps(self._pixels.result())})
        part = part_of(folder, number)
        _write(part.video, self._video.getvalue())
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        _write(part.table, buffer.getvalue())
        return len(self._rows)


class PixelStats:
    """Statistics of pixel values (0 to 1) for each colour channel, in LeRobot's layout."""

    def __init__(self) -> None:
        self._count = 0
        self._sum, self._square = np.zeros(3), np.zeros(3)
        self._low, self._high = np.full(3, 255), np.zeros(3)

    def add(self, frame: UInt8[ndarray, "h w 3"]) -> None:
        """Add a frame; use only every `STATS_STRIDE`-th row and column of its pixels."""
        flat = frame[::STATS_STRIDE, ::STATS_STRIDE].reshape(-1, 3)
        values = flat.astype(np.float64)
        self._sum += values.mean(axis=0)
        self._square += np.square(values).mean(axis=0)
        self._low, self._high = np.minimum(self._low, flat.min(axis=0)), np.maximum(self._high, flat.max(axis=0))
        self._count += 1

    def result(self) -> dict[str, Any]:
        """Return the lists `min`, `max`, `mean` and `std` of shape (3, 1, 1), and `count` = [number of frames]."""
        mean = self._sum / self._count
        std = np.sqrt(np.maximum(self._square / self._count - mean**2, 0))
        found = {"min": self._low, "max": self._high, "mean": mean, "std": std}
        return {name: (value / 255).reshape(3, 1, 1).tolist() for name, value in found.items()} | {
            "count": [self._count]
        }


def part_of(folder: Path, number: int) -> DatasetPart:
    """Return the paths of an episode's part (video and table); the files need not exist."""
    return DatasetPart(folder / f"{number:06d}.mp4", folder / f"{number:06d}.parquet")


def num_rows(part: DatasetPart) -> int:
    """Return the number of frames of a part."""
    return int(pq.read_metadata(part.table).num_rows)


def is_whole(part: DatasetPart) -> bool:
    """Return whether a part on disk is complete; a power cut can leave files without contents."""
    try:
        with av.open(str(part.video)) as container:
            return num_rows(part) == container.streams.video[0].frames
    except (OSError, pa.ArrowException, av.FFmpegError, IndexError):
        return False


def _write(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, then rename it.

    This needs no fsync, because after a crash `is_whole` checks parts before they are used.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(data)
    os.replace(aside, path)
