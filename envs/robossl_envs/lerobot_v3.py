"""Write a LeRobotDataset v3.0, the format of huggingface/lerobot, without the package lerobot.

Each `append` adds three files: a video, a data file and a file of episode metadata. The metadata file is written last,
and its episodes belong to the data set only once it exists. So the data set stays readable if the process dies at any
time.
Frames are copied from the episodes' videos without encoding them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from av.video.stream import VideoStream

from robossl.common.atomic_io import atomic_write
from robossl.errors import InputError, reason
from robossl_envs.lerobot_layout import (
    CHUNK,
    INDEX_DTYPES,
    PLACE,
    Column,
    DatasetPart,
    Layout,
    arrow_array,
    info,
    tasks_table,
)
from robossl_envs.lerobot_stats import EpisodeStatistics, column_statistics


class LeRobotWriter:
    """Adds episodes to a new or an existing data set.

    Raises:
        InputError: the data set on disk has other columns, another frame rate or robot type, or is damaged.
    """

    def __init__(self, root: Path, layout: Layout) -> None:
        self._root, self._layout = root, layout
        for path in root.glob("**/*.tmp"):  # temporary files of a killed run
            path.unlink()
        self.num_episodes = self.num_frames = self._num_files = 0
        self._statistics = EpisodeStatistics()
        for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
            with _refuse_damaged(path, "choose another --out"):
                for row in pq.read_table(path).to_pylist():
                    self._count(row)
            self._num_files += 1
        self._check()
        # Write these files before any episode. Then an episode is complete as soon as its metadata file exists.
        self._write_tasks()
        self._write_summary()

    def append(self, parts: Sequence[DatasetPart]) -> None:
        """Add episodes in this order, as one video, one data file and one metadata file.

        All three files are flushed to disk on return.
        """
        place = {"chunk_index": self._num_files // CHUNK, "file_index": self._num_files % CHUNK}
        tables = [pq.read_table(part.table) for part in parts]
        with atomic_write(self._file(f"videos/{self._layout.camera}", place, ".mp4")) as aside:
            join_videos([part.video for part in parts], aside, self._layout.frames_per_s)
        with atomic_write(self._file("data", place, ".parquet")) as aside:
            rows = self._write_data(aside, tables, place)
        with atomic_write(self._file("meta/episodes", place, ".parquet")) as aside:
            pq.write_table(pa.Table.from_pylist(rows), aside)
        self._num_files += 1
        for row in rows:
            self._count(row)
        self._write_summary()

    def _check(self) -> None:
        path = self._root / "meta" / "info.json"
        if not path.exists():
            return
        now = info(self._layout, self.num_episodes, self.num_frames)
        names = ("features", "fps", "robot_type")
        with _refuse_damaged(path, "remove it and run the same command again to rewrite it"):
            said = json.loads(path.read_text(encoding="utf-8"))
            kept = {name: said[name] for name in names}
        for name in names:
            if kept[name] != now[name]:
                raise InputError(
                    f"{self._root} has different {name} than this environment has now; choose another --out"
                )

    def _file(self, folder: str, place: Mapping[str, int], suffix: str) -> Path:
        path = self._root / folder / (PLACE.format(**place) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_data(self, path: Path, tables: Sequence[pa.Table], place: Mapping[str, int]) -> list[dict[str, Any]]:
        """Write a data file with one row group per episode; return one metadata row per episode."""
        rows: list[dict[str, Any]] = []
        start = self.num_frames
        writer: pq.ParquetWriter | None = None
        for number, part in enumerate(tables, start=self.num_episodes):
            table = _indexed(part, number, start, self._layout.frames_per_s)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            rows.append(self._episode(number, start, start - self.num_frames, table, part, place))
            start += len(table)
        assert writer is not None, "nothing to append"
        writer.close()
        return rows

    def _episode(
        self, number: int, start: int, in_file: int, table: pa.Table, part: pa.Table, place: Mapping[str, int]
    ) -> dict[str, Any]:
        """Return the metadata row of one episode, whose first frame is frame `in_file` of its video file."""
        rate, camera = self._layout.frames_per_s, self._layout.camera
        row: dict[str, Any] = {"episode_index": number, "tasks": [self._layout.task], "length": len(table)}
        for what in ("data", f"videos/{camera}", "meta/episodes"):
            row |= {f"{what}/{name}": value for name, value in place.items()}
        row |= {"dataset_from_index": start, "dataset_to_index": start + len(table)}
        row |= {
            f"videos/{camera}/from_timestamp": in_file / rate,
            f"videos/{camera}/to_timestamp": (in_file + len(table)) / rate,
        }
        found = column_statistics(table)
        found[camera] = json.loads((part.schema.metadata or {})[b"pixels"])
        return row | {f"stats/{key}/{name}": value for key, of in found.items() for name, value in of.items()}

    def _count(self, row: Mapping[str, Any]) -> None:
        self.num_episodes += 1
        self.num_frames += row["length"]
        self._statistics.add(row)

    def _write_tasks(self) -> None:
        path = self._root / "meta" / "tasks.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as aside:
            pq.write_table(tasks_table(self._layout.task), aside)

    def _write_summary(self) -> None:
        _write_json(self._root / "meta" / "stats.json", self._statistics.result())
        _write_json(self._root / "meta" / "info.json", info(self._layout, self.num_episodes, self.num_frames))


@contextmanager
def _refuse_damaged(path: Path, remedy: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, pa.ArrowException) as error:
        raise InputError(f"{path} is damaged ({reason(error)}); {remedy}") from None


def join_videos(sources: Sequence[Path], path: Path, frames_per_s: int) -> None:
    """Concatenate videos by copying their packets; all must have the same codec settings.

    The sources must have no B-frames, so that their packets are in display order.
    """
    with open(path, "wb") as file, av.open(file, "w", format="mp4") as joined:
        stream: VideoStream | None = None
        count = 0
        for source in sources:
            with av.open(str(source)) as container:
                given = container.streams.video[0]
                stream = stream or joined.add_stream_from_template(given)
                for packet in container.demux(given):
                    if packet.dts is None:  # such a packet marks the end of the file
                        continue
                    packet.stream, packet.time_base = stream, Fraction(1, frames_per_s)
                    packet.pts = packet.dts = count
                    packet.duration = 1
                    joined.mux(packet)
                    count += 1


def _indexed(part: pa.Table, number: int, start: int, frames_per_s: int) -> pa.Table:
    """Return the table of an episode with LeRobot's index columns added; `start` is the index of its first frame."""
    frames = np.arange(len(part))
    index = {
        "timestamp": frames / frames_per_s,
        "frame_index": frames,
        "episode_index": np.full(len(part), number),
        "index": start + frames,
        "task_index": np.zeros(len(part)),
    }
    table = part.replace_schema_metadata(None)
    for name, values in index.items():
        table = table.append_column(name, arrow_array(Column(name, INDEX_DTYPES[name]), values))
    return table


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(value, indent=1), encoding="utf-8")
