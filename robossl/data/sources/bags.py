"""What the sources of bags (recordings of topics) share: every camera topic of a recording becomes an episode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import yaml

from robossl.data.files import find_files, fingerprint, unreadable_reason
from robossl.data.labels import NO_LABELS
from robossl.data.manifest import Problem
from robossl.data.source import GAP_COLUMN, Damaged, Frame, Listing, SourceOptions, Unit
from robossl.data.sources.array_rows import common_columns, join_names, split_names
from robossl.data.sources.bag_columns import BagColumn, is_column_type, match_columns, read_columns
from robossl.data.sources.bag_topics import Bag, BagLook, as_damage, describe_topics, look_into
from robossl.data.sources.ros_images import CameraDecoder, CameraPicture
from robossl.errors import InputError

METADATA = "metadata.yaml"  # rosbag2 writes it beside the files of one recording


class BagSource:
    """Reads the recordings under a folder, or one recording. A subclass opens those of its format."""

    suffixes: ClassVar[frozenset[str]]

    def __init__(self, root: Path, labels: Path | None = None, options: SourceOptions | None = None) -> None:
        if labels not in (None, NO_LABELS):
            raise InputError("--labels is for videos, images and tars; a bag has no labels")
        self._root = root if root.is_dir() else root.parent
        self._only = root.name if root.is_file() else None
        self._open: tuple[str, Bag] | None = None
        self._columns: tuple[str, dict[str, BagColumn]] | None = None

    def open_bag(self, paths: list[Path]) -> Bag:
        """Open the files of one recording, which are in order."""
        raise NotImplementedError

    def listing(self) -> Listing:
        """List one unit (episode) per camera and recording; decode the first message of each topic only."""
        recordings, skipped, notes = self._recordings()
        units: list[Unit] = []
        widths: dict[str, dict[str, int]] = {}
        topics: dict[str, list[str]] = {}
        for recording, files in recordings.items():
            try:
                with as_damage():
                    bag = self._bag(join_names(files))
                    look = look_into(bag)
            except Damaged as damage:
                skipped.append(Problem(recording, str(damage)))
                continue
            skipped += [Problem(f"{recording}{_slash(topic)}", why) for topic, why in look.refused.items()]
            notes += [Problem(f"{recording}{_slash(topic)}", why) for topic, why in look.notes.items()]
            topics.setdefault(look.shown, []).append(recording)
            if look.cameras:
                widths[recording] = look.columns
                units += self._units(recording, files, bag, look)
        columns, dropped = common_columns(widths)
        address: dict[str, str | int | float] = {"columns": join_names([f"{name}={columns[name]}" for name in columns])}
        units = sorted((replace(unit, address=unit.address | address) for unit in units), key=lambda unit: unit.key)
        all_columns = columns | {GAP_COLUMN: 1} if columns else {}
        return Listing(
            units, tuple(skipped), (*notes, *dropped), all_columns, describe_topics(topics, is_matched=bool(columns))
        )

    def frames(self, unit: Unit) -> Iterator[Frame]:
        """Yield the frames of a camera, each with the nearest row of every column."""
        files, topic = str(unit.address["files"]), str(unit.address["topic"])
        first, before = None, 0
        with as_damage():
            bag = self._bag(files)
            columns = self._read_columns(bag, str(unit.address["columns"]))
            for number, picture in enumerate(_pictures(bag, topic)):
                first = picture.stamp if first is None else first
                if number and picture.stamp < before:
                    back = (before - picture.stamp) / 1e9
                    raise Damaged(f"the time of frame {number} is {back:.3f} s before that of the frame before it")
                before = picture.stamp
                row = match_columns(columns, picture.stamp, picture.log_time)
                yield Frame(picture.pixels, (picture.stamp - first) / 1e9, row)

    def _recordings(self) -> tuple[dict[str, list[str]], list[Problem], list[Problem]]:
        """Return the files of each recording, the files that cannot be read, and notes."""
        if self._only is not None:
            why = unreadable_reason(self._root, self._only)
            return ({}, [Problem(self._only, why)], []) if why else ({self._only: [self._only]}, [], [])
        paths, skipped = find_files(self._root, self.suffixes)
        recordings = {path: [path] for path in paths}
        notes = []
        for folder in sorted({Path(path).parent for path in paths}):
            named = files_of_metadata(self._root / folder)
            files = [(folder / name).as_posix() for name in named if (folder / name).as_posix() in recordings]
            if not files:
                continue
            name = self._root.resolve().name if folder == Path() else folder.as_posix()
            for path in files:
                del recordings[path]
            recordings[name] = files
            if lacking := [each for each in named if (folder / each).as_posix() not in files]:
                notes.append(Problem(name, f"{lacking[0]} of its {METADATA} is missing; the other files are read"))
        return recordings, skipped, notes

    def _bag(self, files: str) -> Bag:
        if self._open is None or self._open[0] != files:
            self._open = self._columns = None  # closes the files of the recording before
            self._open = files, self.open_bag([self._root / path for path in split_names(files)])
        return self._open[1]

    def _read_columns(self, bag: Bag, columns: str) -> dict[str, BagColumn]:
        """Read the columns of the open recording, once for all its cameras."""
        if self._columns is None or self._columns[0] != columns:
            lines = [line.rsplit("=", 1) for line in split_names(columns)]
            widths = {name: int(width) for name, width in lines}
            kinds = {
                topic: found.type
                for topic, found in bag.topics.items()
                if is_column_type(found.type) and any(f"{name}.".startswith(f"{topic.strip('/')}.") for name in widths)
            }
            self._columns = columns, read_columns(bag.messages(kinds), kinds, widths) if widths else {}
        return self._columns[1]

    def _units(self, recording: str, files: list[str], bag: Bag, look: BagLook) -> list[Unit]:
        return [
            Unit(
                key=f"{recording}{_slash(topic)}",
                fingerprint=fingerprint(*(self._root / path for path in files)),
                num_frames=bag.topics[topic].num_messages,
                labels={"camera": topic.strip("/"), "recording": recording},
                address={"files": join_names(files), "topic": topic, "encoding": encoding},
            )
            for topic, encoding in look.cameras.items()
        ]


def files_of_metadata(folder: Path) -> list[str]:
    """Return the names of the files of a rosbag2 recording in order, from its metadata.yaml; none if it has none."""
    try:
        text = (folder / METADATA).read_text(encoding="utf-8")
        paths = yaml.safe_load(text)["rosbag2_bagfile_information"]["relative_file_paths"]
        return [Path(str(path)).name for path in paths]  # early versions put the name of the folder before it
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []


def _pictures(bag: Bag, topic: str) -> Iterator[CameraPicture]:
    decoder = CameraDecoder()
    for _, log_time, message in bag.messages([topic]):
        yield from decoder.decode(message, log_time)
    yield from decoder.finish()


def _slash(topic: str) -> str:
    return f"/{topic.strip('/')}" if topic else ""
