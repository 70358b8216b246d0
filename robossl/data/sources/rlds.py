"""RLDS data sets as tensorflow-datasets writes them (Open X-Embodiment): tfrecords, read without TensorFlow.

Each camera of an episode becomes one episode. Layout: tensorflow_datasets/core/{naming,example_serializer}.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from robossl.data.files import fingerprint
from robossl.data.labels import NO_LABELS, split_name
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.array_rows import common_columns, import_reader, join_names, split_names
from robossl.data.sources.rlds_features import RldsFeatures, read_features
from robossl.data.sources.rlds_files import (
    RldsShard,
    explain_no_shard,
    find_data_sets,
    holds_data_set,
    join_path,
    missing_shards,
    parse_shard,
    stated_lengths,
)
from robossl.data.sources.tfrecord import Span, TfRecordFile
from robossl.errors import InputError, reason

DEFAULT_FPS = 10.0


class RldsSource:
    """Reads the RLDS data sets under a folder, or one tfrecord file of one."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; an RLDS data set contains its own instructions")
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._frames_per_s = (options or SourceOptions()).image_fps or DEFAULT_FPS
        self._open: tuple[str, TfRecordFile] | None = None

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a tfrecord file, or a folder with one or with the metadata of a TFDS data set."""
        if root.is_file():
            return parse_shard("", root.name) is not None
        return holds_data_set(root)

    def listing(self) -> Listing:
        """List one unit (episode) per camera and record. Read names, lengths and instructions, but no picture."""
        import_reader("google_crc32c", "rlds")
        units: list[Unit] = []
        skipped: list[Problem] = []
        notes: list[Problem] = []
        widths: dict[str, dict[str, int]] = {}
        for folder, shards in find_data_sets(self._root, self._only, skipped).items():
            try:
                features = read_features(self._root / folder)
                if not shards:
                    raise Damaged(explain_no_shard(self._root / folder))
            except Damaged as error:
                skipped.append(Problem(folder, str(error)))
                continue
            notes += [replace(note, path=join_path(folder, note.path)) for note in features.notes]
            widths[folder] = features.widths
            stated = stated_lengths(self._root / folder)
            for shard in shards:
                units += self._list_shard(shard, features, stated.get((shard.split, shard.number)), skipped)
            if self._only is None:
                skipped += missing_shards(folder, shards)
        columns, unequal = common_columns(widths) if widths else ({}, [])
        units = [replace(unit, address=unit.address | _kept(unit, columns)) for unit in units]
        units.sort(key=lambda unit: unit.key)
        remark = f"RLDS states no rate: episodes are read at {self._frames_per_s:g} frames/s (--image-fps changes it)"
        return Listing(units, tuple(skipped), (*notes, *unequal), columns, (remark,) if units else ())

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the steps of an episode as one camera saw them, each with its row of the columns."""
        address = unit.address
        span = int(address["begin"]), int(address["end"])
        try:
            file = self._file(str(address["file"]))
            file.check(span)
            features = file.features(span)
            pictures = file.values(features.get(str(address["camera"]), (0, 0)))
            columns: dict[str, Any] = {}
            for line in split_names(address["columns"]):
                name, path, width = line.split("=")
                columns[name] = _matrix(file.values(features.get(path, (0, 0))), path, len(pictures), int(width))
        except (OSError, ValueError) as error:
            raise Damaged(f"cannot be read ({reason(error)})") from error
        for number, picture in enumerate(pictures):
            pixels = decode_image(bytes(picture))
            values = {name: matrix[number] for name, matrix in columns.items()}
            yield Frame(pixels, number / float(address["frames_per_s"]), values)

    def _list_shard(
        self, shard: RldsShard, features: RldsFeatures, stated: int | None, skipped: list[Problem]
    ) -> list[Unit]:
        units: list[Unit] = []
        count = 0
        try:
            file = self._file(shard.path)
            for span in file.spans():
                units += self._units(file, shard, count, span, features)
                count += 1
        except (Damaged, OSError, ValueError) as error:
            read = f"; the {count} episodes before are read" if count else ""
            skipped.append(Problem(shard.path, f"{reason(error)}{read}"))
        else:
            if stated is not None and count != stated:
                what = f"holds {count} of the {stated} episodes that dataset_info.json states; download it again"
                skipped.append(Problem(shard.path, what))
        return units

    def _units(
        self, file: TfRecordFile, shard: RldsShard, number: int, span: Span, features: RldsFeatures
    ) -> list[Unit]:
        task, num_frames = "", 1
        try:  # a damaged record is reported when it is read
            found = file.features(span)
            texts = (_first_text(file.values(found[path])) for path in features.instructions if path in found)
            task = next(filter(None, texts), "")
            num_frames = _count_steps(file, found, features)
        except Damaged:
            pass
        folder = shard.path.rpartition("/")[0]
        recording = join_path(folder or ".", f"{shard.name}-{shard.split}-{shard.number:05d}/{number:06d}")
        columns = [f"{name}={path}={features.widths[name]}" for name, path in features.columns.items()]
        address: dict[str, str | int | float] = {"file": shard.path, "begin": span[0], "end": span[1]}
        address |= {"frames_per_s": self._frames_per_s, "columns": join_names(columns)}
        labels = {"recording": recording, "dataset": shard.name} | ({"task": task} if task else {})
        return [
            Unit(
                key=f"{recording}/{name}",
                fingerprint=f"{fingerprint(self._root / shard.path)}@{span[0]}@{self._frames_per_s:g}",
                num_frames=num_frames,
                split=split_name(shard.split) or shard.split,
                labels={"camera": name, **labels},
                address=address | {"camera": path},
            )
            for name, path in features.cameras.items()
        ]

    def _file(self, path: str) -> TfRecordFile:
        if self._open is None or self._open[0] != path:
            if self._open is not None:
                self._open[1].close()
                self._open = None
            self._open = path, TfRecordFile(self._root / path)
        return self._open[1]


def _kept(unit: Unit, columns: Mapping[str, int]) -> dict[str, str | int | float]:
    lines = split_names(unit.address["columns"])
    return {"columns": join_names([line for line in lines if line.split("=", 1)[0] in columns])}


def _count_steps(file: TfRecordFile, found: Mapping[str, Span], features: RldsFeatures) -> int:
    sizes = {path: features.widths[name] for name, path in features.columns.items()} | {"steps/is_first": 1}
    counts = (len(file.values(found[path])) // max(1, size) for path, size in sizes.items() if path in found)
    return max(1, next(counts, 1))


def _first_text(values: Sequence[Any] | ndarray) -> str:
    first = values[0] if len(values) else b""
    return first.decode(errors="replace").strip() if isinstance(first, bytes) else ""


def _matrix(values: Sequence[Any] | ndarray, path: str, num_steps: int, width: int) -> ndarray:
    """Return the values of a column, one row per step."""
    if len(values) != num_steps * width or isinstance(values, list):
        raise Damaged(f"{path} has {len(values)} values for {num_steps} steps of {width}; every step needs them")
    return np.asarray(values, np.float32).reshape(num_steps, width)
