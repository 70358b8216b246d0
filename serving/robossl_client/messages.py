"""Build requests for the pinned encoder, and read its replies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import EncoderCard
from robossl_client.errors import (
    EncoderChangedError,
    RequestError,
    ServerFailedError,
    ServingError,
    UnknownModelError,
    error_of,
)
from robossl_client.frames import Frames, check_frames, raw_bytes
from robossl_client.wire import as_array, get_value, put_values

CONTROL_DEADLINE_MS, BATCH_DEADLINE_MS = 1_000.0, 60_000.0  # defaults, equal to the server's


@dataclass(frozen=True, slots=True)
class Reply:
    """Features of frames, their encoder, and the time spent."""

    features: dict[str, npt.NDArray[Any]]  # a row for each frame
    frame_id: str
    model: str
    version: int
    digest: str  # of the encoder's weights
    artefact: str  # sha256 of the model file
    age_s: float  # from capture until returned to the caller, by this machine's clock
    server_us: int  # from arrival of the request to its reply, including:
    decode_us: int
    queue_us: int
    infer_us: int
    superseded: int  # older frames of this camera that this one replaced in the queue


@dataclass(frozen=True, slots=True)
class Pin:
    """The encoder of a client, and the fields of its requests."""

    card: EncoderCard
    artefact: str | None  # None accepts any model of this name and version
    version: str  # empty for the current one
    robot: str | None
    outputs: tuple[str, ...]

    def check(self, frames: object) -> None:
        """Check frames before anything is sent.

        Raises:
            RequestError: they are not frames, or the pinned encoder does not take their size.
        """
        check_frames(frames, fixed_hw=self.card.input.fixed_hw if self.version else None)

    def allowed_s(self, *given_ms: float | None) -> float:
        """Return how long a call may take: the first given value, or the default of a robot or a batch."""
        default_ms = BATCH_DEADLINE_MS if self.robot is None else CONTROL_DEADLINE_MS
        return next((each for each in given_ms if each is not None), default_ms) / 1e3

    def request(
        self,
        frames: Frames,
        *,
        camera: str,
        frame_id: str,
        captured_s: float,
        region: Mapping[str, Any] | None = None,
        timeout_ms: float | None = None,
    ) -> pb.ModelInferRequest:
        """Return the request for frames.

        Args:
            frames: RGB frames or encoded images that passed `check`.
            camera: Name of the robot's camera.
            frame_id: Id that the reply repeats.
            captured_s: Capture time by time.monotonic().
            region: Parameters of the place in shared memory that holds the bytes.
            timeout_ms: How long the server may take, for streams, whose requests have no deadline.
        """
        message = pb.ModelInferRequest(model_name=self.card.name, model_version=self.version, id=frame_id)
        tensor = message.inputs.add(name=self.card.input.name)
        if isinstance(frames, np.ndarray):
            tensor.datatype = "UINT8"
            tensor.shape.extend(frames.shape)
        else:
            tensor.datatype = "BYTES"
            tensor.shape.append(len(frames))
        if region is None:
            message.raw_input_contents.append(raw_bytes(frames))
        else:
            put_values(tensor.parameters, region)
        if len(self.outputs) < len(self.card.outputs):
            for name in self.outputs:
                message.outputs.add(name=name)
        age_us = max(0, int((time.monotonic() - captured_s) * 1e6))
        timeout_us = None if timeout_ms is None else max(1, int(timeout_ms * 1e3))
        put_values(message.parameters, {"artefact": self.artefact, "timeout": timeout_us})
        if self.robot is not None:
            put_values(message.parameters, {"robot": self.robot, "camera": camera, "age_us": age_us})
        return message

    def reply(self, message: pb.ModelInferResponse, *, captured_s: float) -> Reply:
        """Read a reply.

        Raises:
            EncoderChangedError: the reply is from another encoder.
            ServerFailedError: the reply is damaged.
        """
        said = message.parameters  # a missing key gives an empty parameter
        artefact = said["artefact"].string_param
        if self.artefact is not None and artefact != self.artefact:
            raise EncoderChangedError(f"the reply is of version {message.model_version}, not of the pinned encoder")
        if len(message.outputs) != len(message.raw_output_contents):
            raise ServerFailedError("the reply has different numbers of outputs and raw contents")
        try:
            features = {
                tensor.name: as_array(raw, tensor.datatype, tuple(tensor.shape))
                for tensor, raw in zip(message.outputs, message.raw_output_contents, strict=True)
            }
        except (KeyError, TypeError, ValueError):
            raise ServerFailedError("the reply's bytes do not fit its types and shapes") from None
        return Reply(
            features=features,
            frame_id=message.id,
            model=message.model_name,
            version=int(message.model_version or 0),
            digest=said["digest"].string_param or self.card.digest,
            artefact=artefact,
            age_s=time.monotonic() - captured_s,
            server_us=said["server_us"].int64_param,
            decode_us=said["decode_us"].int64_param,
            queue_us=said["queue_us"].int64_param,
            infer_us=said["infer_us"].int64_param,
            superseded=said["superseded"].int64_param,
        )


def make_pin(
    metadata: pb.ModelMetadataResponse,
    *,
    card: EncoderCard | None,
    digest: str | None,
    robot: str | None,
    outputs: Sequence[str] | None,
    follow: bool,
) -> Pin:
    """Pin the encoder described by a server.

    Raises:
        EncoderChangedError: the encoder's weights do not have the wanted digest.
        RequestError: the encoder does not have a wanted output.
        ServerFailedError: the server has no card, and none was given.
    """
    text = metadata.properties.get("card")
    if card is None and text is None:
        raise ServerFailedError("the server has no card of this model, like Triton; pass card=")
    card = card or EncoderCard.from_json(str(text), origin="the server's card")
    if digest is not None and card.digest != digest:
        raise EncoderChangedError(
            f"{card.name} version {card.version} has the weights {card.digest[:12]}, wanted are {digest[:12]}"
        )
    missing = [name for name in outputs or () if name not in card.outputs]
    if missing:
        raise RequestError(f"{card.name} has no output {missing[0]!r}; choose from {', '.join(card.outputs)}")
    artefact = None if follow or "artefact" not in metadata.properties else metadata.properties["artefact"]
    version = "" if follow else str(card.version)
    return Pin(card, artefact, version, robot, tuple(outputs or card.outputs))


def only_model(index: pb.RepositoryIndexResponse) -> str:
    """Return the name of a server's only model.

    Raises:
        UnknownModelError: the server has no model, or several.
    """
    names: list[str] = sorted({row.name for row in index.models if row.state == "READY"})
    if len(names) != 1:
        raise UnknownModelError(f"the server has {', '.join(names) or 'no model'}; pass model=")
    return names[0]


def failure_of(response: pb.ModelStreamInferResponse) -> ServingError | None:
    """Return the error in a stream's reply, or None."""
    if not response.error_message:
        return None
    parameters = response.infer_response.parameters
    status = get_value(parameters["status"]) if "status" in parameters else None
    return error_of(str(status), response.error_message)
