"""Wire format: the calls of the service and their paths, and conversion of arrays and values to and from messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf import message_factory

from robossl_client._proto import inference_pb2 as pb

SERVICE = "inference.GRPCInferenceService"  # public name of the service; the generated code has a private name for it
TENSOR_TYPES: dict[str, type[np.generic]] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}
_NAMES = {np.dtype(kind).name: name for name, kind in TENSOR_TYPES.items()}
_NO_DEADLINE_S = 1e9  # if more time is left, the call has no deadline; grpc then reports about 9e18 s

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class ServiceMethod:
    """The types of request and response of one call of the service."""

    request: Any  # message class
    response: Any  # message class
    streams: bool

    @property
    def encode_request(self) -> Callable[[Any], bytes]:
        """Function that serializes a request message."""
        encode: Callable[[Any], bytes] = self.request.SerializeToString
        return encode

    @property
    def decode_response(self) -> Callable[[bytes], Any]:
        """Function that parses a response message."""
        decode: Callable[[bytes], Any] = self.response.FromString
        return decode


def _calls() -> dict[str, ServiceMethod]:
    methods = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods
    message = message_factory.GetMessageClass
    return {
        each.name: ServiceMethod(message(each.input_type), message(each.output_type), each.client_streaming)
        for each in methods
    }


CALLS = _calls()


def path(name: str) -> str:
    """Return the grpc path of a call.

    >>> path("ModelInfer")
    '/inference.GRPCInferenceService/ModelInfer'
    """
    return f"/{SERVICE}/{name}"


def tensor_type(dtype: str) -> str:
    """Return the protocol's name of a numpy dtype.

    >>> tensor_type("float32")
    'FP32'
    """
    return _NAMES[dtype]


def as_array(raw: bytes, datatype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """View raw little-endian bytes as a read-only array, without a copy."""
    return np.ndarray(shape, TENSOR_TYPES[datatype], raw)


def put_values(parameters: Any, values: Mapping[str, Value | None]) -> None:
    """Write values into a message's parameters; leave out values that are None."""
    for key, value in values.items():
        if isinstance(value, bool):
            parameters[key].bool_param = value
        elif isinstance(value, int):
            parameters[key].int64_param = value
        elif isinstance(value, float):
            parameters[key].double_param = value
        elif value is not None:
            parameters[key].string_param = value


def get_value(parameter: Any) -> Value | None:
    """Return the value of a parameter, or None if it is not set."""
    kind = parameter.WhichOneof("parameter_choice")
    value: Value | None = getattr(parameter, kind) if kind else None
    return value


def seconds_left(context: Any) -> float | None:
    """Return the seconds left until a call's deadline, or None without a deadline."""
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_S else float(left)
