"""Read and check the parameters of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robossl_client._proto import inference_pb2 as pb
from robossl_client.clocks import MAX_AGE_S
from robossl_client.wire import Value, get_value

from robossl_serving.limits import Limits
from robossl_serving.refused import bad_request

_TYPES: dict[str, type[Value]] = {"robot": str, "camera": str, "age_us": int, "artefact": str, "timeout": int}


@dataclass(frozen=True, slots=True)
class RequestOptions:
    """The request parameters that the server uses; it ignores others, such as Triton's `sequence_*` and `priority`."""

    robot: str | None = None  # name of the robot that sends a control request; None for a batch request
    camera: str = ""
    age_us: int = 0  # microseconds from capture to sending of the frame, by the client's clock
    artefact: str | None = None  # sha256 of the only model.onnx whose embeddings the client accepts
    timeout: int | None = None  # time limit in microseconds, as in Triton; the call's deadline applies too


def read_options(request: pb.ModelInferRequest, limits: Limits) -> RequestOptions:
    """Return the options of a request.

    Raises:
        RefusedError: there are too many parameters, or a parameter has a wrong type or size.
    """
    if len(request.parameters) > limits.parameters or len(request.outputs) > limits.parameters:
        raise bad_request(f"a request has at most {limits.parameters} parameters and outputs")
    if len(request.id) > limits.name_chars:
        raise bad_request(f"an id has at most {limits.name_chars} characters")
    options = RequestOptions(**_known(request.parameters, limits))
    if options.robot == "":
        raise bad_request("the parameter 'robot' is empty; leave it out for a batch request")
    if options.age_us < 0 or (options.timeout or 0) < 0:
        raise bad_request("the parameters 'age_us' and 'timeout' must not be negative")
    if options.age_us > MAX_AGE_S * 1e6:
        raise bad_request(
            f"the parameter 'age_us' is {options.age_us}, over {MAX_AGE_S:g} s; "
            "send the microseconds from capture to now, by one clock"
        )
    return options


def read_version(parameters: Mapping[str, pb.ModelRepositoryParameter]) -> int | None:
    """Return the version that RepositoryModelLoad asks for, or None if the model's version policy decides.

    Raises:
        RefusedError: there is a parameter other than 'version', or 'version' is not a number.
    """
    if parameters.keys() - {"version"}:
        raise bad_request("a model is loaded as it is in the repository: the only parameter is 'version', a number")
    if "version" not in parameters:
        return None
    value = get_value(parameters["version"])
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise bad_request("the parameter 'version' must be the number of a version; RepositoryIndex lists them")
    return value


def _known(parameters: Mapping[str, pb.InferParameter], limits: Limits) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for name, parameter in parameters.items():
        kind = _TYPES.get(name)
        if kind is None:
            continue
        value = get_value(parameter)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise bad_request(f"the parameter {name!r} must be {'a string' if kind is str else 'an integer'}")
        if isinstance(value, str) and len(value) > limits.name_chars:
            raise bad_request(f"the parameter {name!r} has at most {limits.name_chars} characters")
        known[name] = value
    return known
