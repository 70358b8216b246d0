"""Build requests for the pinned encoder, and read its replies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import STATE, CardError, EncoderCard
from robossl_client.errors import (
    EncoderChangedError,
    RequestError,
    ServerFailedError,
    ServingError,
    UnknownModelError,
    error_of,
)
from robossl_client.frames import Frames, check_frames, raw_bytes
from robossl_client.states import as_state, state_problem
from robossl_client.wire import as_array, get_value, put_values

State = npt.NDArray[np.float32]  # (b, v), one row for each frame

# Default deadlines for robots and for batch requests; the server has the same defaults.
CONTROL_DEADLINE_MS, BATCH_DEADLINE_MS = 1_000.0, 60_000.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the server: the features of frames, the encoder that computed them, and durations."""

    features: dict[str, npt.NDArray[Any]]  # features by output name; each array has one row per frame
    frame_id: str
    model: str
    version: int
    digest: str  # sha256 of the encoder's weights
    artefact: str  # sha256 of the model file
    age_s: float  # seconds from the capture of the frames until the caller gets the reply
    # Microseconds from the arrival of the request to its reply; includes the durations in the three fields below.
    server_us: int
    decode_us: int  # microseconds from the arrival of the request until its frames were decoded
    queue_us: int  # microseconds that the frames waited for the encoder, after they were decoded
    infer_us: int  # microseconds that the encoder ran
    superseded: int  # number of older frames of this camera that this frame replaced in the queue


@dataclass(frozen=True, slots=True)
class Pin:
    """The encoder that a client has pinned (it accepts no other), and the fields that all its requests share."""

    card: EncoderCard
    artefact: str | None  # sha256 of the model file; None accepts any model of this name and version
    version: str  # version number to ask for; empty for the server's current version
    robot: str | None
    outputs: tuple[str, ...]

    def check(self, frames: object, state: object = None) -> State | None:
        """Check frames and state before anything is sent; return the state as an array, or None if there is none.

        Raises:
            RequestError: the argument does not hold frames, or the pinned encoder does not take frames of this size or
                this state.
        """
        check_frames(frames, fixed_hw=self.card.input.fixed_hw if self.version else None)
        try:
            values: State | None = as_state(state)
        except ValueError as error:
            raise RequestError(str(error)) from None
        num_frames = len(frames)  # type: ignore[arg-type]  # check_frames refuses what has no length
        problem = state_problem(self.card, values, num_frames=num_frames, outputs=self.outputs)
        if problem is not None:
            raise RequestError(problem)
        return values

    def allowed_s(self, *given_ms: float | None) -> float:
        """Return how many seconds a call may take: the first of `given_ms` that is not None, otherwise the default."""
        default_ms = BATCH_DEADLINE_MS if self.robot is None else CONTROL_DEADLINE_MS
        return next((each for each in given_ms if each is not None), default_ms) / 1e3

    def request(
        self,
        frames: Frames,
        *,
        camera: str,
        frame_id: str,
        captured_s: float,
        state: State | None = None,
        region: Mapping[str, Any] | None = None,
        timeout_ms: float | None = None,
    ) -> pb.ModelInferRequest:
        """Build the request that sends frames, and the state of a policy.

        Args:
            frames: RGB frames or encoded images that passed `check`.
            camera: Name of the robot's camera.
            frame_id: Id that the reply repeats.
            captured_s: Capture time by time.monotonic().
            state: The state that `check` returned.
            region: Parameters that say where the frames are in shared memory. None puts the frames into the request.
            timeout_ms: How long the server may take. Requests in a stream need it, because they have no grpc deadline.
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
        if state is not None:
            message.inputs.add(name=STATE, datatype="FP32", shape=state.shape)
            message.raw_input_contents.append(state.tobytes())
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
        """Convert a message of the server to a Reply.

        Raises:
            EncoderChangedError: the reply is from another encoder.
            ServerFailedError: the reply is damaged.
        """
        said = message.parameters  # protobuf gives an empty parameter for a missing key
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
    """Return a `Pin` of the encoder that a server's metadata describe.

    Raises:
        EncoderChangedError: the encoder's weights do not have the wanted digest.
        RequestError: the encoder does not have a wanted output.
        ServerFailedError: the server has no card, and no `card` was given.
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


def compare_weights(pinned: EncoderCard, metadata: pb.ModelMetadataResponse) -> str:
    """Say whether the current encoder of a server has other weights than the pinned one, or only another file."""
    try:
        current = EncoderCard.from_json(metadata.properties["card"], origin="the server's card").digest
    except CardError:
        return "The server did not say whether the weights of the two differ"
    if current == pinned.digest:
        return f"The weights of the two are the same ({current[:12]}), only the files differ: it was exported again"
    return f"The weights of the two differ, so their embeddings are not comparable: pinned {pinned.digest[:12]}"


def only_model(index: pb.RepositoryIndexResponse) -> str:
    """Return the name of a server's only model.

    Raises:
        UnknownModelError: the server has no model that is ready, or several models.
    """
    names: list[str] = sorted({row.name for row in index.models if row.state == "READY"})
    if len(names) != 1:
        raise UnknownModelError(f"the server has {', '.join(names) or 'no model'}; pass model=")
    return names[0]


def failure_of(response: pb.ModelStreamInferResponse) -> ServingError | None:
    """Return the error that a stream's reply reports, or None if it reports none."""
    if not response.error_message:
        return None
    parameters = response.infer_response.parameters
    status = get_value(parameters["status"]) if "status" in parameters else None
    return error_of(str(status), response.error_message)
