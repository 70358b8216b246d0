"""Records of tfrecord files and the tf.train.Example in each, read without TensorFlow.

A record is its length (8 bytes), the crc of the length (4), the data, and the crc of the data (4); little endian.
Layout: tensorflow/core/lib/io/record_writer.h and tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from robossl.data.source import Damaged
from robossl.data.sources.array_rows import import_reader

HEAD, TAIL = 12, 4  # bytes before and behind the data of a record
GZIP_MAGIC = b"\x1f\x8b"
_CRC_BLOCK = 1 << 20
# Field tags of the protobuf wire format: number << 3 | 2, where 2 means a length and as many bytes.
_FIELD_1, _FIELD_2 = 0x0A, 0x12

Span = tuple[int, int]  # first byte, and the byte behind the last


class TfRecordFile:
    """An open tfrecord file.

    Raises:
        InputError: the package google-crc32c is missing.
        OSError, ValueError: the file cannot be read, or is empty.
    """

    def __init__(self, path: Path) -> None:
        self._crc32c = import_reader("google_crc32c", "rlds")
        with open(path, "rb") as file:
            self._data = mmap(file.fileno(), 0, access=ACCESS_READ)

    def close(self) -> None:
        """Close the file."""
        self._data.close()

    def spans(self) -> Iterator[Span]:
        """Yield where the data of each record lie. Only the lengths are read.

        Raises:
            Damaged: the file breaks off, is compressed, or is no tfrecord file.
        """
        at, number = 0, 0
        while at < len(self._data):
            if at == 0 and self._data[:2] == GZIP_MAGIC:
                raise Damaged("compressed with gzip, cannot be read in place; unpack it with gunzip")
            head = self._data[at : at + HEAD]
            if len(head) == HEAD:
                length, crc = struct.unpack("<QI", head)
                if crc != self._masked_crc((at, at + 8)):
                    raise Damaged(f"record {number} has a wrong checksum of its length; not a tfrecord, or damaged")
            if len(head) < HEAD or at + HEAD + length + TAIL > len(self._data):
                raise Damaged(f"breaks off in record {number} at byte {len(self._data)}; download it again")
            yield at + HEAD, at + HEAD + length
            at, number = at + HEAD + length + TAIL, number + 1

    def check(self, span: Span) -> None:
        """Check the data of a record against its checksum.

        Raises:
            Damaged: they differ, or the file is shorter now.
        """
        stated = self._data[span[1] : span[1] + TAIL]
        if len(stated) < TAIL or struct.unpack("<I", stated)[0] != self._masked_crc(span):
            raise Damaged("wrong checksum (crc32c): the record is damaged; download the file again")

    def features(self, span: Span) -> dict[str, Span]:
        """Return where each feature of a record's Example lies, by name. Only names and lengths are read.

        Raises:
            Damaged: the record is no Example.
        """
        found: dict[str, Span] = {}
        for features in self._fields(span, _FIELD_1):
            for entry in self._fields(features, _FIELD_1):
                name = next(self._fields(entry, _FIELD_1), (0, 0))
                value = next(self._fields(entry, _FIELD_2), (0, 0))
                found[self._data[slice(*name)].decode(errors="replace")] = value
        return found

    def values(self, span: Span) -> list[bytes] | ndarray:
        """Return the values of a feature: a list of bytes, or a flat array of float32 or int64.

        Raises:
            Damaged: the bytes are no feature.
        """
        try:
            feature = _feature_type().FromString(self._data[slice(*span)])
        except Exception as error:  # the error's class differs between implementations of protobuf
            raise Damaged(f"a feature cannot be parsed ({error})") from error
        kind = feature.WhichOneof("kind")
        if kind == "bytes_list":
            return list(feature.bytes_list.value)
        if kind == "float_list":
            return np.array(feature.float_list.value, np.float32)
        return np.array(feature.int64_list.value if kind else [], np.int64)

    def _masked_crc(self, span: Span) -> int:
        crc = 0
        for begin in range(*span, _CRC_BLOCK):
            crc = self._crc32c.extend(crc, self._data[begin : min(begin + _CRC_BLOCK, span[1])])
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    def _fields(self, span: Span, wanted: int) -> Iterator[Span]:
        """Yield the bytes of the fields with the tag `wanted` in a message whose fields all have lengths."""
        at, end = span
        while at < end:
            tag = self._data[at]
            length, at = self._varint(at + 1, end)
            if tag not in (_FIELD_1, _FIELD_2) or at + length > end:
                raise Damaged("a record is no tf.train.Example")
            if tag == wanted:
                yield at, at + length
            at += length

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 64:
            byte = self._data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                return value, at
        raise Damaged("a record is no tf.train.Example")


@cache
def _feature_type() -> Any:
    """Return the class of the message tf.train.Feature, built from its descriptor."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="robossl/feature.proto", package="robossl.tf", syntax="proto3")
    lists = {"BytesList": 12, "FloatList": 2, "Int64List": 3}  # TYPE_BYTES, TYPE_FLOAT, TYPE_INT64
    for name, kind in lists.items():
        file.message_type.add(name=name).field.add(name="value", number=1, type=kind, label=3)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, field) in enumerate(zip(lists, ("bytes_list", "float_list", "int64_list"), strict=True), 1):
        feature.field.add(
            name=field, number=number, type=11, label=1, type_name=f".robossl.tf.{name}", oneof_index=0
        )  # TYPE_MESSAGE, LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("robossl.tf.Feature"))
