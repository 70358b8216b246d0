"""Read a ROS 1 bag whose index is missing because the recorder was killed: find the messages from start to end."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from robossl.data.sources.array_rows import import_reader


def open_without_index(path: Path) -> tuple[Any, int]:
    """Return a reader of rosbags whose index was built from the messages, and the number of messages.

    Messages after the first record that is incomplete are left out.

    Raises:
        Exception: the file is no bag, or the reader cannot read it; the type is the reader's.
    """
    module = import_reader("rosbags.rosbag1.reader", "rosbag")
    reader = module.Reader(path)
    size = path.stat().st_size
    reader.bio = bio = io.BufferedReader(io.FileIO(path))
    try:
        if bio.readline() != b"#ROSBAG V2.0\n":
            raise module.ReaderError("File magic is invalid.")
        connections: dict[int, Any] = {}
        indexes: dict[int, list[Any]] = defaultdict(list)
        while True:
            begin = bio.tell()
            try:
                kind = module.Header.read(bio).get_uint8("op")
                bio.seek(module.read_uint32(bio), os.SEEK_CUR)
            except module.ReaderError:  # the file ends here
                break
            if bio.tell() > size:
                break
            if kind == module.RecordType.CHUNK:
                _index_chunk(module, reader, begin, connections, indexes)
    except BaseException:
        bio.close()
        raise
    reader.indexes = {number: sorted(indexes[number]) for number in connections}
    reader.connections = [
        connection._replace(msgcount=len(indexes[number])) for number, connection in connections.items()
    ]
    return reader, sum(map(len, indexes.values()))


def _index_chunk(
    module: Any, reader: Any, begin: int, connections: dict[int, Any], indexes: dict[int, list[Any]]
) -> None:
    """Add the messages of the chunk (a block of records) at `begin` to the index."""
    bio = reader.bio
    bio.seek(begin)
    chunk = reader.chunks[begin] = reader.read_chunk()
    end = bio.tell()
    bio.seek(chunk.datapos)
    content = io.BytesIO(chunk.decompressor(module.read_bytes(bio, chunk.datasize)))
    length = len(content.getbuffer())
    while (offset := content.tell()) < length:
        header = module.Header.read(content)
        if header.get_uint8("op") == module.RecordType.CONNECTION:
            content.seek(offset)
            reader.bio = content
            connection = reader.read_connection()
            reader.bio = bio
            connections.setdefault(connection.id, connection)
        else:
            content.seek(module.read_uint32(content), os.SEEK_CUR)
            indexes[header.get_uint32("conn")].append(module.IndexData(header.get_time("time"), begin, offset))
    bio.seek(end)
