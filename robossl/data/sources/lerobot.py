"""Read LeRobotDataset v2.1 and v3.0 without the lerobot package; each camera of an episode becomes one episode."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from robossl.data.files import fingerprint, leaves_root, unreadable_reason
from robossl.data.labels import NO_LABELS
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.lerobot_columns import column_widths, read_matrix
from robossl.data.sources.lerobot_frames import (
    MAX_MISSING_FRAMES,
    LeRobotFrameSpan,
    LeRobotSegment,
    count_frame_spans,
    drift_frames,
    frames_of_segment,
    rows_in_order,
    rows_of_frames,
)
from robossl.data.sources.lerobot_meta import LeRobotEpisode, LeRobotMetadata, read_metadata
from robossl.data.video import Video, frame_times, read_header
from robossl.errors import InputError


class LeRobotSource:
    """Reads a dataset folder with `meta/info.json`."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; a LeRobot dataset contains its own tasks")
        self._root = root
        self._video: tuple[str, Video] | None = None
        self._times: tuple[str, list[float]] | None = None

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a folder with LeRobot's metadata."""
        return (root / "meta" / "info.json").is_file()

    def listing(self) -> Listing:
        """List one unit (episode of a store) per camera and episode, from the metadata; decode no frame.

        Also read some data files for the widths of the columns, and one video header per camera for the codec.
        """
        dataset = read_metadata(self._root)
        units: list[Unit] = []
        skipped: list[Problem] = []
        for episode in dataset.episodes:
            reason = unreadable_reason(self._root, episode.data_file)
            if reason:
                skipped.append(Problem(episode.data_file, f"episode {episode.index}: {reason}"))
                continue
            for camera in dataset.cameras:
                file = episode.videos[camera].file if camera in episode.videos else ""
                reason = unreadable_reason(self._root, file) if file else ""
                if reason:
                    skipped.append(Problem(file, f"episode {episode.index}: {reason}"))
                else:
                    units.append(_unit(self._root, dataset, episode, camera))
        data_files = list(dict.fromkeys(str(unit.address["data"]) for unit in units))
        widths, notes = column_widths(self._root, dataset, data_files) if units else ({}, [])
        if dataset.shared_files:
            units, drifts = _with_frame_spans(units, dataset)
            notes += drifts
        units = [_with_columns(unit, {name: dataset.columns[name] for name in widths}, widths) for unit in units]
        notes += [note for camera in dataset.cameras for note in self._codec_notes(dataset, units, camera)]
        units.sort(key=lambda unit: unit.key)
        return Listing(units, tuple(skipped), (*dataset.notes, *notes), widths)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the frames of an episode in order, each with the values of its row in the data file."""
        columns, image = unit.address["columns"], str(unit.address["image"])
        names = dict(pair.split("=", 1) for pair in str(columns).split("\n") if pair)
        table = self._table(unit, [*names.values(), *([image] if image else [])])
        values = {
            name: read_matrix(name, table[column], int(unit.address[f"width:{name}"])) for name, column in names.items()
        }
        pictures = self._pictures(table, image, unit) if image else self._video_frames(unit, table)
        count, start = 0, 0.0
        for row, seconds, pixels in pictures:
            start = seconds if count == 0 else start
            count += 1
            yield Frame(pixels, seconds - start, {name: matrix[row] for name, matrix in values.items()})
        if count + MAX_MISSING_FRAMES < table.num_rows:
            raise Damaged(f"only {count} frames can be decoded for {table.num_rows} rows")

    def _table(self, unit: Unit, columns: Sequence[str]) -> pa.Table:
        address = unit.address
        filters = pc.field("episode_index") == int(address["episode"]) if address["shared_file"] else None
        wanted = list(dict.fromkeys([*columns, "frame_index"]))
        table = pq.read_table(self._root / str(address["data"]), columns=wanted, filters=filters, partitioning=None)
        if table.num_rows == 0:
            raise Damaged(f"{address['data']} has no rows of episode {address['episode']}")
        return table

    def _video_frames(self, unit: Unit, table: pa.Table) -> Iterator[tuple[int, float, np.ndarray]]:
        """Yield the row, the time and the pixels of each frame of the episode."""
        file, frames_per_s = str(unit.address["video"]), float(unit.address["frames_per_s"])
        if self._times is None or self._times[0] != file:
            self._times = (file, frame_times(self._root / file))
        times = self._times[1]
        if unit.address["shared_file"]:
            segment, span = _segment_and_span(unit)
            chosen = frames_of_segment(times, segment, span, frames_per_s)
            times = times[chosen.start : chosen.stop]
        start_seconds = float(unit.address["from_seconds"])
        row_numbers = rows_of_frames(times, start_seconds, table.num_rows, frames_per_s)
        order = rows_in_order(table["frame_index"].to_pylist())
        rows = [order[number] for number in row_numbers]
        row_at = {round(seconds, 6): row for seconds, row in zip(times, rows, strict=True)}
        first = times[0] - 0.25 / frames_per_s
        for seconds, pixels in self._open(file, first).frames(first):
            row = row_at.get(round(seconds, 6))
            if row is not None:
                yield row, seconds, pixels
            if seconds >= times[-1]:
                return

    def _open(self, file: str, from_seconds: float) -> Video:
        """Return the video of a file, to be read from a given time.

        If the time is after 0, reading starts with a seek. An open video of the same file is then used again.
        """
        if self._video is None or self._video[0] != file or from_seconds <= 0:
            if self._video is not None:
                self._video[1].close()
            self._video = (file, Video(self._root / file))
        return self._video[1]

    def _pictures(self, table: pa.Table, column: str, unit: Unit) -> Iterator[tuple[int, float, np.ndarray]]:
        for number, row in enumerate(rows_in_order(table["frame_index"].to_pylist())):
            picture = table[column][row].as_py()
            data = picture["bytes"] if isinstance(picture, dict) else picture
            if data is None:
                path = str(picture["path"])
                if leaves_root(path) or unreadable_reason(self._root, path):
                    raise Damaged(
                        f"image {path}: {unreadable_reason(self._root, path) or 'path leaves the source folder'}"
                    )
                data = (self._root / path).read_bytes()
            yield row, number / float(unit.address["frames_per_s"]), decode_image(data)

    def _codec_notes(self, dataset: LeRobotMetadata, units: Sequence[Unit], camera: str) -> list[Problem]:
        stated = dataset.codecs.get(camera, "")
        files = [
            str(unit.address["video"]) for unit in units if unit.address["camera"] == camera and unit.address["video"]
        ]
        try:
            actual = read_header(self._root / files[0]).codec if stated and files else stated
        except Damaged:
            return []
        return (
            []
            if actual == stated
            else [Problem("meta/info.json", f"{camera} is {actual}, but the stated codec is {stated}")]
        )


def _unit(root: Path, dataset: LeRobotMetadata, episode: LeRobotEpisode, camera: str) -> Unit:
    video = episode.videos.get(camera)
    short = _short(camera)
    short = camera if [_short(other) for other in dataset.cameras].count(short) > 1 else short
    files = [root / episode.data_file, *([root / video.file] if video else [])]
    address: dict[str, str | int | float] = {
        "camera": camera,
        "episode": episode.index,
        "data": episode.data_file,
        "shared_file": int(dataset.shared_files),
        "image": "" if video else camera,
        "video": video.file if video else "",
        "from_seconds": video.from_seconds if video else 0.0,
        "to_seconds": video.to_seconds if video else math.inf,
        "frames_per_s": dataset.frames_per_s,
    }
    return Unit(
        key=f"episode_{episode.index:06d}/{short}",
        fingerprint=f"{fingerprint(*files)}#{episode.index}",
        num_frames=max(1, episode.length),
        split=episode.split,
        labels={"task": episode.task, "camera": short, "recording": f"{episode.index:06d}"},
        address=address,
    )


def _with_frame_spans(units: Sequence[Unit], dataset: LeRobotMetadata) -> tuple[list[Unit], list[Problem]]:
    """Store in each unit (one camera of an episode) which frames of a shared video belong to its episode.

    Also return a note for each video whose timestamps drift. Episodes without a unit are counted too, because they
    take up frames of the video.
    """
    placed: dict[tuple[int, str], LeRobotFrameSpan] = {}
    notes: list[Problem] = []
    for camera in dataset.cameras:
        by_file: dict[str, list[tuple[LeRobotSegment, int]]] = {}
        for episode in dataset.episodes:
            if (video := episode.videos.get(camera)) is not None:
                segment = LeRobotSegment(video.from_seconds, video.to_seconds, episode.length)
                by_file.setdefault(video.file, []).append((segment, episode.index))
        for file, segments in by_file.items():
            segments.sort(key=lambda pair: pair[0].from_seconds)
            spans = count_frame_spans([segment for segment, _ in segments], dataset.frames_per_s)
            placed |= {(index, camera): span for (_, index), span in zip(segments, spans, strict=True)}
            drifts = [
                drift_frames(segment, span, dataset.frames_per_s)
                for (segment, _), span in zip(segments, spans, strict=True)
            ]
            worst = max(drifts, key=abs)
            if abs(worst) >= 0.5:
                drift = f"from_timestamp is up to {worst:+.1f} frames off the lengths of the episodes; paired by counts"
                notes.append(Problem(file, drift))
    return [_with_frame_span(unit, placed) for unit in units], notes


def _with_frame_span(unit: Unit, placed: Mapping[tuple[int, str], LeRobotFrameSpan]) -> Unit:
    span = placed.get((int(unit.address["episode"]), str(unit.address["camera"])))
    return unit if span is None else replace(unit, address=unit.address | asdict(span))


def _segment_and_span(unit: Unit) -> tuple[LeRobotSegment, LeRobotFrameSpan]:
    address = unit.address
    segment = LeRobotSegment(float(address["from_seconds"]), float(address["to_seconds"]), unit.num_frames)
    span: dict[str, Any] = {entry.name: address[entry.name] for entry in fields(LeRobotFrameSpan)}
    return segment, LeRobotFrameSpan(**span)


def _with_columns(unit: Unit, columns: Mapping[str, str], widths: Mapping[str, int]) -> Unit:
    address: dict[str, str | int | float] = {"columns": "\n".join(f"{name}={file}" for name, file in columns.items())}
    address |= {f"width:{name}": widths[name] for name in columns}
    return replace(unit, address=unit.address | address)


def _short(camera: str) -> str:
    return camera.removeprefix("observation.images.").removeprefix("observation.")
