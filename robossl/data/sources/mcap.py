"""MCAP files: rosbag2 recordings (ROS 2 messages in CDR) and Foxglove's pictures and videos (CDR, protobuf or JSON).

Each camera topic becomes an episode. Format: mcap.dev/spec.
"""

from __future__ import annotations

import heapq
import io
import itertools
import struct
import weakref
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from robossl.data.files import any_file
from robossl.data.source import Damaged, Listing
from robossl.data.sources.array_rows import import_reader
from robossl.data.sources.bag_topics import Bag, BagTopic
from robossl.data.sources.bags import BagSource
from robossl.data.sources.mcap_messages import Decode, message_decoder

SUFFIXES = frozenset({".mcap", ".mcap.zstd"})
Message = tuple[Any, Any, int, bytes]  # schema, channel, log time in nanoseconds, data

_RECORD, _MESSAGE = struct.Struct("<BQ"), struct.Struct("<HIQQ")  # heads: kind, length; channel, number, two times
_CHUNK = struct.Struct("<QQQI")  # head: two times, length and checksum of what is decompressed
_KIND_OF_MESSAGE, _KIND_OF_CHUNK = 5, 6


class McapSource(BagSource):
    """Reads the MCAP files under a folder, or one file."""

    suffixes = SUFFIXES

    @staticmethod
    def accepts(root: Path) -> bool:
        """Return whether `root` is an MCAP file, or a folder with one."""
        return root.name.lower().endswith(tuple(SUFFIXES)) if root.is_file() else any_file(root, SUFFIXES)

    def listing(self) -> Listing:
        """List one unit (episode) per camera and recording; decode the first message of each topic only."""
        import_reader("mcap_ros2.decoder", "mcap")
        return BagSource.listing(self)

    def open_bag(self, paths: list[Path]) -> Bag:
        """Open the MCAP files of one recording, which are in order."""
        return McapBag(paths)


class McapBag:
    """An open recording of one or several MCAP files."""

    def __init__(self, paths: list[Path]) -> None:
        self._files = [McapFile(path) for path in paths]
        self._decoders: dict[tuple[str, str, bytes], Decode] = {}
        self.note = "; ".join(file.note for file in self._files if file.note)
        counts: Counter[str] = Counter()
        types: dict[str, str] = {}
        for file in self._files:
            counts.update(file.counts)
            types = file.types | types
        self.topics = {topic: BagTopic(types[topic], counts[topic]) for topic in types}

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
        """Yield topic, log time in nanoseconds, and decoded message."""
        for file in self._files:
            for schema, channel, log_time, data in file.messages(set(topics)):
                key = (channel.message_encoding, schema.name, schema.data) if schema else ("", "", b"")
                if key not in self._decoders:
                    self._decoders[key] = message_decoder(schema, channel.message_encoding)
                decode = self._decoders[key]
                yield channel.topic, log_time, decode(data)


class McapFile:
    """An open MCAP file. Without an index (a recorder was killed), it is read from start to end or up to the cut.

    Raises:
        Damaged: the file is no MCAP.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() == ".zstd":
            raise Damaged("compressed as a file; decompress it: zstd -d FILE, and name the result in metadata.yaml")
        self._file = _ExactFile(path)
        weakref.finalize(self, self._file.close)
        self._reader = import_reader("mcap.reader", "mcap")
        self._streams = import_reader("mcap.stream_reader", "mcap")
        self.note = ""
        self.counts: Counter[str] = Counter()
        self.types: dict[str, str] = {}
        self._summary = summary = self._read_summary()
        is_indexed = summary and summary.channels and summary.statistics and summary.statistics.channel_message_counts
        # Chunks are blocks of messages. The times of a chunk may overlap with those of the next.
        self._chunks = sorted(summary.chunk_indexes, key=lambda chunk: chunk.message_start_time) if is_indexed else []
        self._checked: set[int] = set()  # chunks whose checksum was verified
        self._buffer = bytearray()  # holds one chunk
        if self._chunks:
            for number, channel in summary.channels.items():
                schema = summary.schemas.get(channel.schema_id)
                self.types.setdefault(channel.topic, schema.name if schema else "")
                self.counts[channel.topic] += summary.statistics.channel_message_counts.get(number, 0)
        else:
            for schema, channel, _, _ in self._scan():
                self.types.setdefault(channel.topic, schema.name if schema else "")
                self.counts[channel.topic] += 1

    def messages(self, topics: Collection[str]) -> Iterator[Message]:
        """Yield the messages of these topics."""
        if not self._chunks:
            yield from (found for found in self._scan() if found[1].topic in topics)
            return
        channels = {number for number, channel in self._summary.channels.items() if channel.topic in topics}
        chunks = [
            chunk
            for chunk in self._chunks
            if not chunk.message_index_offsets or channels & chunk.message_index_offsets.keys()
        ]
        waiting: list[tuple[int, int, int, bytes]] = []  # log time, count, channel and data of messages to sort
        counter = itertools.count()
        for chunk in chunks:
            while waiting and waiting[0][0] < chunk.message_start_time:
                yield self._with_schema(heapq.heappop(waiting))
            data = self._read_chunk(chunk)
            for log_time, number, begin, end in _find_messages(data, channels):
                heapq.heappush(waiting, (log_time, next(counter), number, bytes(data[begin:end])))
        while waiting:
            yield self._with_schema(heapq.heappop(waiting))

    def _with_schema(self, found: tuple[int, int, int, bytes]) -> Message:
        log_time, _, number, data = found
        channel = self._summary.channels[number]
        return self._summary.schemas.get(channel.schema_id), channel, log_time, data

    def _read_chunk(self, index: Any) -> memoryview:
        """Return the messages of a chunk, decompressed, until the next call; the first time verify their checksum."""
        size = index.chunk_length
        if index.chunk_start_offset + size > self._file.size or size < index.compressed_size + _RECORD.size:
            raise Damaged("the index names a chunk that is not there")
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        record = memoryview(self._buffer)[:size]
        self._file.seek(index.chunk_start_offset)
        if self._file.readinto(record) < size or _RECORD.unpack_from(record) != (_KIND_OF_CHUNK, size - _RECORD.size):
            raise Damaged("the index names a chunk that does not begin there")
        data, is_new = record[size - index.compressed_size :], index.chunk_start_offset not in self._checked
        _, _, length, checksum = _CHUNK.unpack_from(record, _RECORD.size)
        if index.compression:
            chunk = import_reader("mcap.records", "mcap").Chunk(index.compression, data, 0, 0, checksum, length)
            content, length = self._streams.get_chunk_data_stream(chunk, validate_crc=is_new)
            data = memoryview(content.read(length))
        elif is_new and checksum and zlib.crc32(data) != checksum:
            raise Damaged("the checksum of a chunk is wrong")
        self._checked.add(index.chunk_start_offset)
        return data

    def _read_summary(self) -> Any:
        try:
            self._file.seek(0)
            return self._reader.SeekingReader(self._file).get_summary()
        # The end of the file is missing, so anything may stand in its place.
        except Exception:
            return None

    def _scan(self) -> Iterator[Message]:
        """Yield all messages, without the index; stop where the file is cut."""
        schemas: dict[int, Any] = {}
        channels: dict[int, Any] = {}
        end_of_file = import_reader("mcap.exceptions", "mcap").EndOfFile
        self._file.seek(0)
        num_messages = 0
        try:
            for record in self._streams.StreamReader(self._file, validate_crcs=True).records:
                match type(record).__name__:
                    case "Schema":
                        schemas[record.id] = record
                    case "Channel":
                        channels[record.id] = record
                    case "Message":
                        channel = channels[record.channel_id]
                        num_messages += 1
                        yield schemas.get(channel.schema_id), channel, record.log_time, record.data
        except end_of_file:
            self.note = f"is cut short; the {num_messages} messages before the cut are read"


def _find_messages(data: memoryview, channels: Collection[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield log time, channel, begin and end of each message of these channels in a chunk."""
    at = 0
    while at < len(data):
        kind, length = _RECORD.unpack_from(data, at)
        begin, at = at + _RECORD.size, at + _RECORD.size + length
        if kind == _KIND_OF_MESSAGE:
            if at > len(data):
                raise Damaged("a message is longer than its chunk")
            channel, _, log_time, _ = _MESSAGE.unpack_from(data, begin)
            if channel in channels:
                yield log_time, channel, begin + _MESSAGE.size, at


class _ExactFile(io.BufferedReader):
    """A file whose `read` returns all bytes that were asked for. The reader would take fewer for a whole message."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path), 1 << 16)
        self.size = path.stat().st_size
        self._end_of_file = import_reader("mcap.exceptions", "mcap").EndOfFile

    def read(self, size: int | None = -1, /) -> bytes:
        # A damaged length may be large, so look before memory is allocated for it.
        if size is not None and size > self.size - self.tell():
            raise self._end_of_file("the file ends too early")
        return super().read(size)
