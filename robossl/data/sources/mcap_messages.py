"""Decode the messages of MCAP files: ROS 2 in CDR, and Foxglove's in protobuf or JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from robossl.data.source import Damaged
from robossl.data.sources.array_rows import import_reader

Decode = Callable[[bytes], Any]


def message_decoder(schema: Any, message_encoding: str) -> Decode:
    """Return the function that decodes messages of a schema.

    Raises:
        Damaged: the encoding is not supported.
    """
    encoding = schema.encoding if schema else ""
    if message_encoding == "json":
        return _decode_json
    if message_encoding == "protobuf" and encoding == "protobuf":
        return _protobuf_decoder(schema)
    decode = import_reader("mcap_ros2.decoder", "mcap").DecoderFactory().decoder_for(message_encoding, schema)
    if decode is None:
        raise Damaged(
            f"messages in {message_encoding} with a schema in {encoding or 'nothing'}; cdr with ros2msg, protobuf and "
            "json are read"
        )
    found: Decode = decode
    return found


def _decode_json(data: bytes) -> Any:
    """Decode a JSON message; Foxglove writes bytes in base64."""
    message = json.loads(data, object_hook=lambda fields: SimpleNamespace(**fields))
    if isinstance(getattr(message, "data", None), str):
        message.data = base64.b64decode(message.data)
    return message


def _protobuf_decoder(schema: Any) -> Decode:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
        pool.Add(file)
    parse: Decode = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name)).FromString
    return parse
