"""Bags of ROS 1 (`.bag`) and of ROS 2 in SQLite (`.db3`, with or without metadata.yaml), read with rosbags.

Each camera topic becomes an episode. Formats: wiki.ros.org/Bags/Format/2.0; github.com/ros2/rosbag2.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from robossl.data.files import any_file
from robossl.data.source import Damaged, Listing
from robossl.data.sources.array_rows import import_reader
from robossl.data.sources.bag_columns import is_column_type
from robossl.data.sources.bag_topics import Bag, BagTopic
from robossl.data.sources.bags import BagSource, files_of_metadata
from robossl.data.sources.ros_images import is_camera_type
from robossl.data.sources.rosbag1_scan import open_without_index

ROS1_SUFFIXES = (".bag", ".bag.active")  # active: the recorder did not finish it
SUFFIXES = frozenset({*ROS1_SUFFIXES, ".db3", ".db3.zstd"})


class RosbagSource(BagSource):
    """Reads the bags under a folder, or one bag."""

    suffixes = SUFFIXES

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is a bag, or a folder with one."""
        return root.name.lower().endswith(tuple(SUFFIXES)) if root.is_file() else any_file(root, SUFFIXES)

    def listing(self) -> Listing:
        """List one unit (episode) per camera and recording; decode the first message of each topic only."""
        import_reader("rosbags.highlevel", "rosbag")
        return BagSource.listing(self)

    def open_bag(self, paths: list[Path]) -> Bag:
        """Open a recording: one file, or the files that a metadata.yaml names."""
        return RosbagBag(paths)


class RosbagBag:
    """An open recording of ROS 1 or ROS 2.

    Raises:
        Damaged: a file cannot be opened.
    """

    def __init__(self, paths: list[Path]) -> None:
        self.note = ""
        self._is_ros1 = paths[0].name.lower().endswith(ROS1_SUFFIXES)
        folder = paths[0].parent
        # The folder's reader also decompresses, but needs every file that metadata.yaml names.
        is_whole = files_of_metadata(folder) == [path.name for path in paths]
        self._readers = [self._open(path) for path in ([folder] if is_whole else paths)]
        self._types = self._read_types()
        self.topics: dict[str, BagTopic] = {}
        for reader in self._readers:
            for connection in reader.connections:
                count = self.topics[connection.topic].num_messages if connection.topic in self.topics else 0
                self.topics[connection.topic] = BagTopic(connection.msgtype, count + connection.msgcount)

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, log time in nanoseconds, and decoded message."""
        decode = self._types.deserialize_ros1 if self._is_ros1 else self._types.deserialize_cdr
        for reader in self._readers:
            chosen = [connection for connection in reader.connections if connection.topic in topics]
            if chosen:
                for connection, log_time, data in reader.messages(connections=chosen):
                    yield connection.topic, log_time, decode(data, connection.msgtype)

    def _open(self, path: Path) -> Any:
        if path.suffix.lower() == ".zstd":
            raise Damaged("compressed as a file, and no metadata.yaml names it; decompress it: zstd -d FILE")
        reader = import_reader("rosbags.rosbag1" if self._is_ros1 else "rosbags.rosbag2", "rosbag").Reader(path)
        try:
            reader.open()
        except Exception:  # the index is missing or cut, which the reader says with errors of several types
            if not self._is_ros1:
                raise
            reader, count = open_without_index(path)
            self.note = f"has no index, as if cut short; the {count} messages before the cut are read"
        weakref.finalize(self, reader.close)
        return reader

    def _read_types(self) -> Any:
        """Return the message types: those that the bag defines, else those of ROS."""
        typesys = import_reader("rosbags.typesys", "rosbag")
        defined: dict[str, Any] = {}
        for reader in self._readers:
            for connection in reader.connections:
                kind, definition = connection.msgtype, connection.msgdef
                if definition.format.name == "MSG" and (is_camera_type(kind) or is_column_type(kind)):
                    defined |= typesys.get_types_from_msg(definition.data, kind)
        if not defined:
            return typesys.get_typestore(typesys.Stores.ROS1_NOETIC if self._is_ros1 else typesys.Stores.LATEST)
        types = typesys.get_typestore(typesys.Stores.EMPTY)
        types.register(defined)
        return types
