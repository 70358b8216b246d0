"""Handlers of all calls of the protocol; they turn errors into grpc statuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from robossl_client._proto import inference_pb2 as pb
from robossl_client.wire import CALLS, SERVICE, seconds_left

from robossl_serving.describe import Descriptions
from robossl_serving.infer import Inference, parse_request
from robossl_serving.metrics import Metrics
from robossl_serving.options import read_version
from robossl_serving.peers import is_loopback
from robossl_serving.refused import RefusedError, bad_request, to_refused
from robossl_serving.repository import Repository
from robossl_serving.shared_memory import SharedMemory
from robossl_serving.streams import Streams

UnaryHandler = Callable[[Any, Any], Message]  # takes request message and context, returns response message


class Handlers:
    """Answers the calls of one server."""

    def __init__(
        self,
        *,
        repository: Repository,
        inference: Inference,
        streams: Streams,
        descriptions: Descriptions,
        shared_memory: SharedMemory | None,
        metrics: Metrics,
    ) -> None:
        self._repository = repository
        self._inference = inference
        self._streams = streams
        self._descriptions = descriptions
        self._shared_memory = shared_memory
        self._metrics = metrics

    def generic(self) -> grpc.GenericRpcHandler:
        """Return one grpc handler for all calls, under the public name of the service."""
        unary = {name: self._unary(name, answer) for name, answer in self._answers().items()}
        infer = grpc.unary_unary_rpc_method_handler(self._guarded(self._infer), None, _to_bytes)
        stream = grpc.stream_stream_rpc_method_handler(self._stream, None, _to_bytes)
        handlers = {**unary, "ModelInfer": infer, "ModelStreamInfer": stream}
        assert handlers.keys() == CALLS.keys()
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    def _answers(self) -> dict[str, UnaryHandler]:
        about = self._descriptions
        return {
            "ServerLive": lambda _, __: pb.ServerLiveResponse(live=True),
            "ServerReady": lambda _, __: pb.ServerReadyResponse(ready=bool(self._repository.models())),
            "ModelReady": lambda ask, _: pb.ModelReadyResponse(ready=about.is_ready(ask.name, ask.version)),
            "ServerMetadata": lambda _, __: about.server(),
            "ModelMetadata": lambda ask, _: about.metadata(ask.name, ask.version),
            "ModelConfig": lambda ask, _: about.config(ask.name, ask.version),
            "ModelStatistics": lambda ask, _: about.statistics(ask.name, ask.version),
            "RepositoryIndex": lambda ask, _: about.index(only_ready=ask.ready),
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
            "SystemSharedMemoryStatus": self._regions,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
        }

    def _unary(self, name: str, answer: UnaryHandler) -> grpc.RpcMethodHandler:
        request = CALLS[name].request

        def decoded(raw: bytes, context: Any) -> Message:
            # Parse the message here, because grpc would answer with INTERNAL if its deserializer failed.
            try:
                message = request.FromString(raw)
            except DecodeError:
                raise bad_request(f"the message is not a {request.DESCRIPTOR.name}") from None
            return answer(message, context)

        return grpc.unary_unary_rpc_method_handler(self._guarded(decoded), None, _to_bytes)

    def _guarded(self, answer: Callable[[bytes, Any], Message]) -> Callable[[bytes, Any], Message]:
        def guarded(raw: bytes, context: Any) -> Message:
            try:
                return answer(raw, context)
            except Exception as error:
                self._abort(context, error)
                raise  # not reached, because abort raises

        return guarded

    def _abort(self, context: Any, error: Exception) -> None:
        refused = to_refused(error)
        self._metrics.refuse(refused.code)
        context.abort(refused.code, refused.message)

    def _infer(self, raw: bytes, context: Any) -> pb.ModelInferResponse:
        done = threading.Lock()  # locked until the request is done; cheaper than an Event
        done.acquire()
        job = self._inference.prepare(
            parse_request(raw),
            left_s=seconds_left(context),
            peer=context.peer(),
            on_done=done.release,
            is_gone=lambda: not context.is_active(),
        )
        self._inference.submit(job, may_run_here=True)
        if job.request.outcome is None:

            def cancel() -> None:
                job.model.executor.cancel(job.request)

            if not context.add_callback(cancel):
                cancel()
            done.acquire()
        return self._inference.reply(job)

    def _stream(self, requests: Iterator[bytes], context: Any) -> Iterator[pb.ModelStreamInferResponse]:
        try:
            yield from self._streams.serve(requests, context)
        except Exception as error:
            self._abort(context, error)

    def _load(self, ask: Any, _: Any) -> Message:
        self._repository.load(ask.model_name, read_version(ask.parameters))
        return pb.RepositoryModelLoadResponse()

    def _unload(self, ask: Any, _: Any) -> Message:
        if ask.parameters.keys() - {"unload_dependents"}:  # Triton's client always sends this parameter
            raise bad_request("a model is unloaded with all its versions; leave out the parameters")
        self._repository.unload(ask.model_name)
        return pb.RepositoryModelUnloadResponse()

    def _memory(self, context: Any) -> SharedMemory:
        if self._shared_memory is None:
            raise RefusedError(
                grpc.StatusCode.UNIMPLEMENTED, "this server has no shared memory; start it with --shared-memory"
            )
        if not is_loopback(context.peer()):
            raise RefusedError(
                grpc.StatusCode.PERMISSION_DENIED, "shared memory is for callers on the server's own host"
            )
        return self._shared_memory

    def _regions(self, ask: Any, context: Any) -> Message:
        answer = pb.SystemSharedMemoryStatusResponse()
        for region in self._memory(context).regions():
            if ask.name in ("", region.name):
                row = answer.regions[region.name]
                row.name, row.key, row.offset, row.byte_size = region.name, region.key, region.offset, region.size
        return answer

    def _register(self, ask: Any, context: Any) -> Message:
        self._memory(context).register(ask.name, ask.key, offset=ask.offset, size=ask.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def _unregister(self, ask: Any, context: Any) -> Message:
        self._memory(context).unregister(ask.name)
        return pb.SystemSharedMemoryUnregisterResponse()


def _to_bytes(message: Message) -> bytes:
    raw: bytes = message.SerializeToString()
    return raw
