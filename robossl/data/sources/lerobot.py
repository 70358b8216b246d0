"""LeRobotDataset v2.1 and v3.0, read without the lerobot package; every camera of an episode is a store episode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robossl.data.files import damage, fingerprint, leaves_root
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, Unit
from robossl.data.sources.lerobot_meta import Dataset, Recording, read_dataset
from robossl.data.video import Video, probe
from robossl.errors import InputError

MAX_MISSING_FRAMES = 2  # encoders lose the last frame or two; the rows without a frame are left out


class LeRobotSource:
    """A dataset folder with `meta/info.json`."""

    def __init__(self, root: Path, labels: Path | None = None) -> None:
        if labels is not None:
            raise InputError("--labels is for videos, images and tars; a LeRobot dataset brings its tasks along")
        self._root = root
        self._video: tuple[str, Video] | None = None

    @staticmethod
    def accepts(root: Path) -> bool:
        """A folder with LeRobot's metadata."""
        return (root / "meta" / "info.json").is_file()

    def listing(self) -> Listing:
        """One unit a camera and episode, from the metadata alone."""
        dataset = read_dataset(self._root)
        units: list[Unit] = []
        skipped: list[Problem] = []
        for recording in dataset.recordings:
            reason = damage(self._root, recording.data_file)
            if reason:
                skipped.append(Problem(recording.data_file, f"episode {recording.index}: {reason}"))
                continue
            for camera in dataset.cameras:
                file = recording.videos[camera].file if camera in recording.videos else ""
                reason = damage(self._root, file) if file else ""
                if reason:
                    skipped.append(Problem(file, f"episode {recording.index}: {reason}"))
                else:
                    units.append(_unit(self._root, dataset, recording, camera))
        widths, notes = self._widths(dataset, units)
        units = [_with_columns(unit, {name: dataset.columns[name] for name in widths}, widths) for unit in units]
        notes += [note for camera in dataset.cameras for note in self._codec_notes(dataset, units, camera)]
        units.sort(key=lambda unit: unit.key)
        return Listing(units, tuple(skipped), (*dataset.notes, *notes), widths)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Frames beside the rows of the data file, in order."""
        columns, image = unit.address["columns"], str(unit.address["image"])
        names = dict(pair.split("=", 1) for pair in str(columns).split("\n") if pair)
        table = self._table(unit, [*names.values(), *([image] if image else [])])
        values = {name: _matrix(name, table[column]) for name, column in names.items()}
        for name, matrix in values.items():
            if matrix.shape[1] != (width := int(unit.address[f"width:{name}"])):
                raise Damaged(f"column {name} has {matrix.shape[1]} values a row, {width} in the first episode")
        pictures = self._pictures(table, image, unit) if image else self._video_frames(unit)
        count, row, before = 0, -1, 0.0
        for seconds, pixels in pictures:
            frames_since = (seconds - before) * float(unit.address["frames_per_s"])
            row += max(1, math.floor(frames_since + 0.25))  # where a frame is missing, its row is too
            if row >= table.num_rows:
                break
            count, before = count + 1, seconds
            yield Frame(pixels, seconds, {name: matrix[row] for name, matrix in values.items()})
        if count + MAX_MISSING_FRAMES < table.num_rows:
            raise Damaged(f"video has {count} frames for {table.num_rows} rows")

    def _table(self, unit: Unit, columns: Sequence[str]) -> pa.Table:
        address = unit.address
        filters = pc.field("episode_index") == int(address["episode"]) if address["shared_file"] else None
        wanted = list(dict.fromkeys([*columns, "frame_index"]))
        table = pq.read_table(self._root / str(address["data"]), columns=wanted, filters=filters, partitioning=None)
        if table.num_rows == 0:
            raise Damaged(f"{address['data']} has no rows of episode {address['episode']}")
        return table

    def _video_frames(self, unit: Unit) -> Iterator[tuple[float, np.ndarray]]:
        file, start = str(unit.address["video"]), float(unit.address["from_seconds"])
        if self._video is None or self._video[0] != file or not start:
            if self._video is not None:
                self._video[1].close()
            self._video = (file, Video(self._root / file))
        half_frame = 0.5 / float(unit.address["frames_per_s"])
        end = float(unit.address["to_seconds"]) - half_frame
        first: float | None = None
        for seconds, pixels in self._video[1].frames(start - half_frame if start else -np.inf):
            if seconds >= end:
                return
            if first is None:
                first = seconds
                if start and first > start + 3 * half_frame:
                    raise Damaged(f"{file} has no frame at {start:.2f} s, the next is at {first:.2f} s")
            yield seconds - first, pixels

    def _pictures(self, table: pa.Table, column: str, unit: Unit) -> Iterator[tuple[float, np.ndarray]]:
        for number, value in enumerate(table[column]):
            picture = value.as_py()
            data = picture["bytes"] if isinstance(picture, dict) else picture
            if data is None:
                path = str(picture["path"])
                if leaves_root(path) or damage(self._root, path):
                    raise Damaged(f"image {path}: {damage(self._root, path) or 'path leaves the source folder'}")
                data = (self._root / path).read_bytes()
            yield number / float(unit.address["frames_per_s"]), decode_image(data)

    def _widths(self, dataset: Dataset, units: Sequence[Unit]) -> tuple[dict[str, int], list[Problem]]:
        """Widths of the per-frame columns as the first data file has them, and where info.json says otherwise."""
        if not units:
            return {}, []
        file = str(units[0].address["data"])
        try:
            row = next(pq.ParquetFile(self._root / file).iter_batches(1, columns=list(dataset.columns.values())))
        except (OSError, pa.ArrowException, StopIteration):
            return dict(dataset.widths), []
        found = {
            name: _matrix(name, row.column(column)).shape[1]
            for name, column in dataset.columns.items()
            if column in row.schema.names and _is_numeric(row.schema.field(column).type)
        }
        notes = [
            Problem(
                "meta/info.json",
                f"{dataset.columns[name]} has {dataset.widths[name]} values by its shape, {width} in {file}",
            )
            for name, width in found.items()
            if width != dataset.widths[name]
        ]
        notes += [
            Problem("meta/info.json", f"{dataset.columns[name]} is not in {file}, or no numbers; not read")
            for name in dataset.columns
            if name not in found
        ]
        return found, notes

    def _codec_notes(self, dataset: Dataset, units: Sequence[Unit], camera: str) -> list[Problem]:
        stated = dataset.codecs.get(camera, "")
        files = [
            str(unit.address["video"]) for unit in units if unit.address["camera"] == camera and unit.address["video"]
        ]
        try:
            actual = probe(self._root / files[0]).codec if stated and files else stated
        except Damaged:
            return []
        return (
            [] if actual == stated else [Problem("meta/info.json", f"{camera} is {actual}, stated codec is {stated}")]
        )


def _unit(root: Path, dataset: Dataset, recording: Recording, camera: str) -> Unit:
    video = recording.videos.get(camera)
    short = _short(camera)
    short = camera if [_short(other) for other in dataset.cameras].count(short) > 1 else short
    files = [root / recording.data_file, *([root / video.file] if video else [])]
    address: dict[str, str | int | float] = {
        "camera": camera,
        "episode": recording.index,
        "data": recording.data_file,
        "shared_file": int(dataset.shared_files),
        "image": "" if video else camera,
        "video": video.file if video else "",
        "from_seconds": video.from_seconds if video else 0.0,
        "to_seconds": video.to_seconds if video else math.inf,
        "frames_per_s": dataset.frames_per_s,
    }
    return Unit(
        key=f"episode_{recording.index:06d}/{short}",
        fingerprint=f"{fingerprint(*files)}#{recording.index}",
        num_frames=max(1, recording.length),
        split=recording.split,
        labels={"task": recording.task, "camera": short, "recording": f"{recording.index:06d}"},
        address=address,
    )


def _with_columns(unit: Unit, columns: Mapping[str, str], widths: Mapping[str, int]) -> Unit:
    address: dict[str, str | int | float] = {"columns": "\n".join(f"{name}={file}" for name, file in columns.items())}
    address |= {f"width:{name}": widths[name] for name in columns}
    return replace(unit, address=unit.address | address)


def _short(camera: str) -> str:
    return camera.removeprefix("observation.images.").removeprefix("observation.")


def _is_numeric(type_: pa.DataType) -> bool:
    while isinstance(type_, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        type_ = type_.value_type
    return pa.types.is_floating(type_) or pa.types.is_integer(type_) or pa.types.is_boolean(type_)


def _matrix(name: str, column: Any) -> np.ndarray:
    try:
        values = np.array(column.to_pylist(), dtype=np.float32)
    except (ValueError, TypeError):
        raise Damaged(f"column {name} is not rows of as many numbers each") from None
    return values.reshape(len(values), -1)
