"""Reflection: public descriptions of all messages and calls, for grpcurl and similar tools."""

from __future__ import annotations

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from robossl_client._proto import inference_pb2 as pb

PUBLIC_PACKAGE = "inference"


def public_pool() -> DescriptorPool:
    """Return a descriptor pool with our messages under their public names, and with health checks and reflection."""
    pool = DescriptorPool()
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    own = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    prefix = f".{own.package}."
    own.package, own.name = PUBLIC_PACKAGE, "inference.proto"
    for message in own.message_type:
        _rename(message, prefix)
    for service in own.service:
        for method in service.method:
            method.input_type = _public(method.input_type, prefix)
            method.output_type = _public(method.output_type, prefix)
    pool.Add(own)
    return pool


def _rename(message: descriptor_pb2.DescriptorProto, prefix: str) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = _public(field.type_name, prefix)
    for nested in message.nested_type:
        _rename(nested, prefix)


def _public(name: str, prefix: str) -> str:
    return f".{PUBLIC_PACKAGE}.{name.removeprefix(prefix)}" if name.startswith(prefix) else name
