"""Inference: turn the bytes of a request into a job for an executor, and the outcome of the job into a reply."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from robossl_client._proto import inference_pb2 as pb
from robossl_client.wire import get_value, put_values

from robossl_serving.budget import MemoryBudget, MemoryClaim, late_error
from robossl_serving.decoding import ImageDecoder
from robossl_serving.executor import ClosedError
from robossl_serving.frames import read_frames, read_state
from robossl_serving.images import EncodedImages
from robossl_serving.limits import Limits
from robossl_serving.model import Model
from robossl_serving.options import RequestOptions, read_options
from robossl_serving.peers import is_loopback
from robossl_serving.refused import RefusedError, bad_request, shutting_down_error
from robossl_serving.repository import Repository
from robossl_serving.requests import Outcome, Request
from robossl_serving.scheduler import QueueFullError
from robossl_serving.shared_memory import SharedMemory

_NOT_SERVED: dict[Outcome, tuple[grpc.StatusCode, str]] = {
    "superseded": (grpc.StatusCode.ABORTED, "a newer frame of this robot and camera took its place"),
    "shed": (late_error().code, late_error().message),
    "cancelled": (grpc.StatusCode.CANCELLED, "cancelled before it was run"),
    "failed": (grpc.StatusCode.INTERNAL, "the encoder failed on these frames; the server's log says why"),
}


@dataclass(eq=False, slots=True)
class InferJob:
    """A request in progress, with its message, model and memory."""

    message: pb.ModelInferRequest
    model: Model
    request: Request
    claim: MemoryClaim
    decoded_s: float

    @property
    def id(self) -> str:
        """The id that the client gave the request."""
        return self.message.id


class Inference:
    """Prepares, queues and answers requests, both of single calls and of streams."""

    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        shared_memory: SharedMemory | None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._repository = repository
        self._limits = limits
        self._shared_memory = shared_memory
        self._budget = budget or MemoryBudget(limits)
        self._decoder = ImageDecoder(self._budget)

    def prepare(
        self,
        message: pb.ModelInferRequest,
        *,
        left_s: float | None,
        peer: str,
        on_done: Callable[[], None],
        is_gone: Callable[[], bool] = lambda: False,
    ) -> InferJob:
        """Check a request, find its model and decode its frames.

        Args:
            message: The request.
            left_s: Time left until the call's deadline; None if the call has no deadline.
            peer: The client's address as grpc writes it.
            on_done: Function that is called when the outcome is known.
            is_gone: Function that returns whether the client has left. If so, the request is not decoded further or
                run.

        Raises:
            RefusedError: the request cannot be served.
        """
        arrived_s = time.monotonic()
        if self._shared_memory is not None and not is_loopback(peer) and _names_region(message):
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, "shared memory is for callers on the server's own host"
            )
        options = read_options(message, self._limits)
        deadline_s = arrived_s + self._allowed_s(options, left_s)
        claim = MemoryClaim(options.robot is not None, deadline_s, is_gone)
        try:
            self._budget.take_message(claim, _held_bytes(message, self._limits))
            model = self._repository.find(message.model_name, message.model_version, options.artefact)
            outputs = _outputs(message, model)
            frames = read_frames(
                message, model.card, max_batch=model.max_batch, limits=self._limits, regions=self._shared_memory
            )
            if isinstance(frames, EncodedImages):
                frames = self._decoder.decode(frames, claim, model.statistics)
            state = read_state(
                message,
                model.card,
                num_frames=len(frames),
                outputs=outputs,
                limits=self._limits,
                regions=self._shared_memory,
            )
        except Exception:
            self._budget.release(claim)
            raise
        request = Request(
            frames=frames,
            outputs=outputs,
            robot=options.robot,
            camera=options.camera,
            captured_s=arrived_s - options.age_us / 1e6,
            arrived_s=arrived_s,
            deadline_s=deadline_s,
            on_done=on_done,
            state=state,
        )
        return InferJob(message, model, request, claim, decoded_s=time.monotonic())

    def submit(self, job: InferJob, *, may_run_here: bool = False) -> None:
        """Queue a job for its model.

        Raises:
            RefusedError: too many requests wait, the client has left, or the model was unloaded meanwhile.
        """
        try:
            if job.claim.is_gone():
                job.model.statistics.count_dropped(job.request.priority, "cancelled")
                raise RefusedError(*_NOT_SERVED["cancelled"])
            self._submit(job, may_run_here=may_run_here)
        except Exception:
            self._budget.release(job.claim)
            raise

    def reply(self, job: InferJob) -> pb.ModelInferResponse:
        """Return the reply to a finished job.

        Raises:
            RefusedError: the job was not served.
        """
        request = job.request
        assert request.outcome is not None
        self.count(job)
        if request.outcome != "served":
            raise RefusedError(*_NOT_SERVED[request.outcome])
        response = pb.ModelInferResponse()
        response.CopyFrom(job.model.reply)  # copies the fields that all replies of the model share
        response.id = job.id
        shared = {each.name: each.parameters for each in job.message.outputs if each.parameters}
        for name, values in request.features().items():
            tensor = response.outputs.add(name=name, datatype=job.model.types[name], shape=values.shape)
            raw = values.tobytes()
            if name in shared and "shared_memory_region" in shared[name]:
                _write(self._shared_memory, shared[name], raw, tensor.parameters)
                raw = b""  # empty but not left out, because tritonclient needs one entry for each output
            response.raw_output_contents.append(raw)
        parameters = response.parameters
        parameters["decode_us"].int64_param = _us(job.decoded_s - request.arrived_s)
        parameters["queue_us"].int64_param = _us(request.started_s - job.decoded_s)
        parameters["infer_us"].int64_param = _us(request.run_s)
        parameters["superseded"].int64_param = request.superseded
        parameters["server_us"].int64_param = _us(time.monotonic() - request.arrived_s)
        return response

    def count(self, job: InferJob) -> None:
        """Count a finished job in the statistics and release its memory; `reply` also does this."""
        job.model.statistics.count_answered(job.request, decoded_s=job.decoded_s)
        self._budget.release(job.claim)

    def _submit(self, job: InferJob, *, may_run_here: bool) -> None:
        while True:
            try:
                job.model.executor.submit(job.request, may_run_here=may_run_here)
                return
            except QueueFullError:
                raise RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests wait for this model; send fewer, or later"
                ) from None
            except ClosedError:
                # Another version took over since the model was found, or the server is shutting down.
                # So find the model again.
                pinned = read_options(job.message, self._limits).artefact
                model = self._repository.find(job.message.model_name, job.message.model_version, pinned)
                if model is job.model:
                    raise shutting_down_error() from None
                job.model = model

    def _allowed_s(self, options: RequestOptions, left_s: float | None) -> float:
        limits = self._limits
        default_ms = limits.batch_deadline_ms if options.robot is None else limits.control_deadline_ms
        timeout_s = options.timeout / 1e6 if options.timeout else None  # in Triton, 0 means no timeout
        return min((each for each in (left_s, timeout_s) if each is not None), default=default_ms / 1e3)


def parse_request(raw: bytes) -> pb.ModelInferRequest:
    """Parse a request.

    Raises:
        RefusedError: the bytes are not a ModelInferRequest.
    """
    try:
        message: pb.ModelInferRequest = pb.ModelInferRequest.FromString(raw)
        return message
    except DecodeError:
        raise bad_request("the message is not a ModelInferRequest") from None


def _names_region(message: pb.ModelInferRequest) -> bool:
    return any("shared_memory_region" in each.parameters for each in (*message.inputs, *message.outputs))


def _held_bytes(message: pb.ModelInferRequest, limits: Limits) -> int:
    """Return the number of bytes that a request holds before decoding: its message and its data in shared memory."""
    held = int(message.ByteSize())
    for tensor in message.inputs:
        if "shared_memory_byte_size" in tensor.parameters:
            said = get_value(tensor.parameters["shared_memory_byte_size"])
            held += min(said, limits.decoded_bytes) if isinstance(said, int) and said > 0 else 0
    return held


def _outputs(message: pb.ModelInferRequest, model: Model) -> tuple[str, ...]:
    names = [output.name for output in message.outputs]
    if len(set(names)) != len(names) or not set(names) <= set(model.card.outputs):
        raise bad_request(f"ask for outputs among {', '.join(model.card.outputs)}, each at most once")
    for output in message.outputs:
        if "classification" in output.parameters and get_value(output.parameters["classification"]) != 0:
            raise bad_request(
                "an encoder returns features, not classes: the output parameter 'classification' is not supported; "
                "leave out class_count"
            )
    return tuple(names or model.card.outputs)


def _write(memory: SharedMemory | None, where: object, raw: bytes, parameters: object) -> None:
    if memory is None:
        raise bad_request("this server has no shared memory; it is started with --shared-memory")
    memory.write(where, raw)
    put_values(parameters, memory.place(where))


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
