"""WebDataset shards: tars in which files with one key (`000123.jpg`, `000123.json`, `000123.cls`) form a sample.

A picture is an episode of one frame, a video is an episode. Pictures whose json names an `episode` and `time_seconds`,
as `robossl convert` writes it, are the frames of this episode. Layout: webdataset/tariterators.py.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robossl.data.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES, any_file, escape_name, find_files, fingerprint
from robossl.data.labels import NO_LABELS, reason_not_label, split_name
from robossl.data.manifest import Problem
from robossl.data.pictures import decode_image
from robossl.data.source import Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.array_rows import common_columns
from robossl.data.sources.tar import refuse_member
from robossl.data.video import Video
from robossl.errors import InputError, reason

_SAMPLE = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")  # the key ends at the first dot of the file name
_DESCRIBED = frozenset({"json", "cls", "txt"})
_NUM_PEEKED = 64  # members that are looked at to tell WebDataset from a tar of images
_MAX_JSON_BYTES = 1 << 20


@dataclass(slots=True)
class WebSample:
    """The files of one key: where each lies, and what the json and the class say."""

    archive: str
    key: str
    media: dict[str, tuple[int, int]] = field(default_factory=dict)  # extension -> offset, size
    about: dict[str, Any] = field(default_factory=dict)


class WebDatasetSource:
    """Reads the shards under a folder, or one shard."""

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError(
                "--labels is for videos, images and tars of images; WebDataset has its labels in json and cls"
            )
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._keep_labels = labels is None

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether the first tar has videos, or files with one key that say something about a picture."""
        if root.is_file():
            return root.name.lower().endswith(".tar") and _is_sharded(root)
        paths = find_files(root, {".tar"})[0] if any_file(root, {".tar"}) else []
        return bool(paths) and _is_sharded(root / paths[0])

    def listing(self) -> Listing:
        """List one unit (episode) per picture, video or episode of frames; read headers, json and classes."""
        paths, skipped = find_files(self._root, {".tar"})
        if self._only is not None:
            paths = [path for path in paths if path == self._only]
            skipped = [problem for problem in skipped if problem.path == self._only]
        samples = [sample for path in paths for sample in self._samples(path, skipped)]
        names, remarks = _label_names(samples) if self._keep_labels else ([], ())
        units: dict[str, Unit] = {}
        widths: dict[str, dict[str, int]] = {}
        frames: dict[str, list[WebSample]] = {}
        for sample in samples:
            if _is_frame(sample):
                frames.setdefault(str(sample.about["episode"]), []).append(sample)
                continue
            prefix = "" if len(paths) == 1 else f"{sample.archive}/"
            for extension, (offset, size) in sample.media.items():
                key = f"{prefix}{sample.key}.{extension}"
                if key in units:
                    skipped.append(Problem(f"{sample.archive}:{key}", "its key is there twice; the first is read"))
                    continue
                widths[key] = {}
                is_video = f".{extension.rsplit('.', 1)[-1]}" in VIDEO_SUFFIXES
                units[key] = Unit(
                    key,
                    f"{fingerprint(self._root / sample.archive)}@{offset}",
                    max(1, size // 10_000) if is_video else 1,
                    _split(sample),
                    _labels(sample, names),
                    {"archive": sample.archive, "offset": offset, "size": size, "video": int(is_video)},
                )
        for key, found in frames.items():
            found.sort(key=lambda sample: float(sample.about["time_seconds"]))
            columns = found[0].about.get("columns")
            widths[key] = {name: len(row) for name, row in columns.items()} if isinstance(columns, dict) else {}
            places = [[each.archive, *next(iter(each.media.values())), each.about["time_seconds"]] for each in found]
            rows = [each.about.get("columns") for each in found]
            end = found[-1].about.get("end_seconds", 0.0)
            prints = {sample.archive: fingerprint(self._root / sample.archive) for sample in found}
            units[key] = Unit(
                key,
                ",".join(f"{name}:{value}" for name, value in prints.items()) + f"@{len(found)}",
                len(found),
                _split(found[0]),
                _labels(found[0], names),
                {"frames": json.dumps(places), "rows": json.dumps(rows), "end_seconds": float(end)},
            )
        columns, notes = common_columns(widths) if widths else ({}, [])
        address: dict[str, str | int | float] = {"columns": json.dumps(columns)}
        listed = [
            Unit(unit.key, unit.fingerprint, unit.num_frames, unit.split, unit.labels, unit.address | address)
            for _, unit in sorted(units.items())
        ]
        return Listing(listed, tuple(skipped), tuple(notes), columns, remarks)

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the picture, the frames of the video, or the frames of the episode with their columns."""
        address = unit.address
        if "frames" in address:
            yield from self._episode(address)
        elif address["video"]:
            yield from self._video(self._read(str(address["archive"]), int(address["offset"]), int(address["size"])))
        else:
            yield Frame(decode_image(self._read(str(address["archive"]), int(address["offset"]), int(address["size"]))))

    def _episode(self, address: Mapping[str, str | int | float]) -> Iterator[Frame]:
        places, rows = json.loads(str(address["frames"])), json.loads(str(address["rows"]))
        names = json.loads(str(address["columns"]))
        start = float(places[0][3])
        last: Frame | None = None
        for (archive, offset, size, seconds), row in zip(places, rows, strict=True):
            try:
                columns = {name: np.asarray(row[name], np.float32).reshape(width) for name, width in names.items()}
            except (KeyError, TypeError, ValueError) as error:
                raise Damaged(f"the columns at {seconds} s cannot be read ({reason(error)})") from error
            last = Frame(decode_image(self._read(archive, offset, size)), float(seconds) - start, columns)
            yield last
        # Frames that equal the frame before them are not stored; the last one says how long the episode is.
        end = float(address["end_seconds"]) - start
        if last is not None and end > last.time_seconds:
            yield Frame(last.pixels, end, last.columns)

    def _video(self, data: bytes) -> Iterator[Frame]:
        with tempfile.NamedTemporaryFile(suffix=".video") as file:
            file.write(data)
            file.flush()
            video = Video(Path(file.name))
            start: float | None = None
            try:
                for seconds, pixels in video.frames():
                    start = seconds if start is None else start
                    yield Frame(pixels, seconds - start)
            finally:
                video.close()

    def _read(self, archive: str, offset: int, size: int) -> bytes:
        with open(self._root / archive, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def _samples(self, archive: str, skipped: list[Problem]) -> list[WebSample]:
        path = self._root / archive
        size = path.stat().st_size
        samples: dict[str, WebSample] = {}
        try:
            with tarfile.open(path, "r:") as tar:
                for member in tar:
                    match = _SAMPLE.fullmatch(member.name.removeprefix("./"))
                    if match is None or member.isdir():
                        continue
                    place = f"{archive}:{escape_name(member.name)}"
                    why = refuse_member(member, size)
                    sample = samples.setdefault(match[1], WebSample(archive, match[1]))
                    extension, kind = match[2], match[2].rsplit(".", 1)[-1].lower()
                    if kind in _DESCRIBED:
                        why = why or _describe(sample, kind, self._read(archive, member.offset_data, member.size))
                    elif f".{kind}" in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not why:
                        if extension in sample.media:
                            why = "its key is there twice; the first is read"
                        else:
                            sample.media[extension] = member.offset_data, member.size
                    if why:
                        skipped.append(Problem(place, why))
                # tarfile treats a cut between two members as the end of the archive.
                if size < tar.offset + tarfile.BLOCKSIZE:
                    raise tarfile.ReadError("no end marker")
        except (tarfile.TarError, OSError) as error:
            skipped.append(Problem(archive, f"shard breaks off after {len(samples)} samples ({reason(error)})"))
        return [sample for sample in samples.values() if sample.media]


def _is_sharded(path: Path) -> bool:
    kinds: dict[str, set[str]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for _, member in zip(range(_NUM_PEEKED), tar, strict=False):
                if match := _SAMPLE.fullmatch(member.name.removeprefix("./")):
                    kinds.setdefault(match[1], set()).add(match[2].rsplit(".", 1)[-1].lower())
    except (tarfile.TarError, OSError):
        pass
    return any(
        any(f".{kind}" in VIDEO_SUFFIXES for kind in found)
        or (bool(found & _DESCRIBED) and any(f".{kind}" in IMAGE_SUFFIXES for kind in found))
        for found in kinds.values()
    )


def _describe(sample: WebSample, kind: str, data: bytes) -> str:
    """Add what a json, class or text says to the sample; return why it cannot be used."""
    try:
        text = data[:_MAX_JSON_BYTES].decode()
        found = json.loads(text) if kind == "json" else {"label" if kind == "cls" else "text": text.strip()}
    except ValueError as error:
        return f"cannot be read ({reason(error)}); its labels are left out"
    if not isinstance(found, dict):
        return "holds no object of names and values; its labels are left out"
    sample.about |= found
    return ""


def _is_frame(sample: WebSample) -> bool:
    seconds = sample.about.get("time_seconds")
    return (
        isinstance(sample.about.get("episode"), str)
        and isinstance(seconds, int | float)
        and math.isfinite(seconds)
        and len(sample.media) == 1
    )


def _plain(sample: WebSample) -> dict[str, str]:
    """Return what a sample says in texts and whole numbers, by name; the names in `labels` count as well."""
    if _is_frame(sample):
        given = sample.about.get("labels")
        return {str(name): str(value) for name, value in given.items()} if isinstance(given, dict) else {}
    return {
        name: str(value)
        for name, value in sample.about.items()
        if isinstance(value, str | int | float) and name not in ("__key__", "__url__", "split")
    }


def _label_names(samples: list[WebSample]) -> tuple[list[str], tuple[str, ...]]:
    """Return which names are labels, and a remark on those that are not."""
    values: dict[str, list[str]] = {}
    in_frames: set[str] = set()
    for sample in samples:
        for name, value in _plain(sample).items():
            values.setdefault(name, []).append(value)
            in_frames |= {name} if _is_frame(sample) else set()
    left_out = {name: why for name in values if name not in in_frames and (why := reason_not_label(name, values[name]))}
    names = [name for name in values if name not in left_out]
    remark = f"labels from json and cls: {', '.join(names) or 'none'}"
    if left_out:
        remark += f"; not labels: {', '.join(f'{name} ({why})' for name, why in left_out.items())}"
    return names, (remark,) if values else ()


def _labels(sample: WebSample, names: list[str]) -> dict[str, str]:
    return {name: value for name, value in _plain(sample).items() if name in names}


def _split(sample: WebSample) -> str:
    if isinstance(stated := sample.about.get("split"), str):
        return split_name(stated) or stated
    words = re.split(r"[-_/.]", sample.archive)
    return next((split for word in words if (split := split_name(word))), "")
