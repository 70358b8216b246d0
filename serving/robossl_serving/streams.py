"""Streams: calls with many requests and replies, in which a newer frame replaces a waiting frame.

One thread per stream reads requests, so that a newer frame can replace a waiting frame while the encoder runs. Another
thread, of grpc, sends the replies. If a client does not read its replies, the server stops reading its requests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from robossl_client._proto import inference_pb2 as pb

from robossl_serving.infer import Inference, InferJob, parse_request
from robossl_serving.limits import Limits
from robossl_serving.refusals import Refusals
from robossl_serving.refused import RefusedError, shutting_down_error, to_refused

_END = object()


class Streams:
    """The open streams of one server."""

    def __init__(
        self, inference: Inference, limits: Limits, on_refused: Callable[[grpc.StatusCode], None] = lambda _: None
    ) -> None:
        """Start without open streams; `on_refused` is called with the status of each request refused in a stream."""
        self._inference = inference
        self._limits = limits
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._open: dict[_Stream, str] = {}  # open streams, each with the address of its client
        self._draining = False

    def serve(self, requests: Iterator[bytes], context: Any) -> Iterator[pb.ModelStreamInferResponse]:
        """Answer one stream until its client ends it or the server shuts down.

        Raises:
            RefusedError: too many streams are open, or the server shuts down.
        """
        refusals = Refusals("refused in a stream", self._on_refused)
        stream = _Stream(self._inference, context.peer(), refusals, unread_replies=self._limits.unread_replies)
        self._enter(stream, context.peer())
        try:
            # The reading thread cannot always tell that the client went away, so let grpc call `cancel` then.
            if not context.add_callback(stream.cancel):
                stream.cancel()
            threading.Thread(target=stream.read, args=(requests,), name="stream-reader", daemon=True).start()
            yield from stream.replies()
            if self._draining:
                raise shutting_down_error()
        finally:
            stream.leave()
            refusals.close()
            with self._lock:
                del self._open[stream]

    def drain(self) -> None:
        """Take no more requests, and end every stream after its pending replies."""
        with self._lock:
            self._draining = True
            streams = list(self._open)
        for stream in streams:
            stream.end()

    def __len__(self) -> int:
        return len(self._open)

    def _enter(self, stream: _Stream, client: str) -> None:
        with self._lock:
            if self._draining:
                raise shutting_down_error()
            same = sum(other == client for other in self._open.values())
            if len(self._open) >= self._limits.streams or same >= self._limits.streams_per_client:
                raise RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"at most {self._limits.streams_per_client} streams of one client, {self._limits.streams} in all",
                )
            self._open[stream] = client


class _Stream:
    def __init__(self, inference: Inference, peer: str, refusals: Refusals, *, unread_replies: int) -> None:
        self._inference = inference
        self._peer = peer
        self._refusals = refusals
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()  # finished jobs and refusals to answer, or _END
        self._room = threading.Semaphore(unread_replies)
        self._lock = threading.Lock()
        self._jobs: set[InferJob] = set()
        self._ended = False
        self._cancelled = False  # whether the client wants no more replies
        self._left = False  # whether nobody takes replies any more

    def read(self, requests: Iterator[bytes]) -> None:
        """Read requests until the client has no more requests or goes away."""
        try:
            while self._room.acquire() and not self._ended:
                self._take(next(requests))
        except StopIteration:  # the client has no more requests
            self.end()
        except grpc.RpcError:  # the client went away
            self.cancel()

    def replies(self) -> Iterator[pb.ModelStreamInferResponse]:
        """Yield replies as they become ready, until the stream has ended and no job is pending."""
        while True:
            item = self._outbox.get()
            if item is not _END:
                yield self._reply(item)
                self._room.release()
            del item  # frees the features of this item before the wait for the next item
            with self._lock:
                if self._ended and not self._jobs and self._outbox.empty():
                    return

    def end(self) -> None:
        """Read no more requests; pending requests are still answered."""
        with self._lock:
            self._ended = True
        self._room.release()
        self._outbox.put(_END)

    def cancel(self) -> None:
        """Cancel all pending requests."""
        self._cancelled = True
        with self._lock:
            jobs = list(self._jobs)
        for job in jobs:
            job.model.executor.cancel(job.request)
        self.end()

    def leave(self) -> None:
        """Cancel all pending requests, and count in the statistics the jobs that will get no reply."""
        self.cancel()
        with self._lock:
            self._left = True
        while not self._outbox.empty():
            self._count(self._outbox.get())

    def _done(self, job: InferJob) -> None:
        with self._lock:
            if not self._left:
                self._outbox.put(job)
                return
        self._count(job)

    def _count(self, item: Any) -> None:
        if isinstance(item, InferJob):
            self._inference.count(item)

    def _take(self, raw: bytes) -> None:
        # `on_done` refers to the job only through `box`, and takes it out of `box`.
        # If `on_done` referred to the job directly, the job would be in a cycle until the next garbage collection.
        # Until that collection, the job's features would keep the memory of a whole onnxruntime session.
        box: list[InferJob] = []
        message = None
        try:
            message = parse_request(raw)
            job = self._inference.prepare(
                message,
                left_s=None,
                peer=self._peer,
                on_done=lambda: self._done(box.pop()),
                is_gone=lambda: self._cancelled,
            )
            box.append(job)
            with self._lock:
                self._jobs.add(job)
            self._inference.submit(job)
        except Exception as error:
            with self._lock:
                self._jobs.difference_update(box)
            refused = to_refused(error)
            self._refusals.add(refused, self._peer, message)
            self._outbox.put((refused, message.id if message is not None else ""))

    def _reply(self, item: InferJob | tuple[RefusedError, str]) -> pb.ModelStreamInferResponse:
        if isinstance(item, InferJob):
            with self._lock:
                self._jobs.discard(item)
            try:
                return pb.ModelStreamInferResponse(infer_response=self._inference.reply(item))
            except Exception as error:  # only this request fails; the stream goes on
                item_id, reason = item.id, to_refused(error)
                self._refusals.add(reason, self._peer, item.message)
        else:
            reason, item_id = item
        response = pb.ModelStreamInferResponse(error_message=reason.message)
        response.infer_response.id = item_id
        response.infer_response.parameters["status"].string_param = reason.code.name
        return response
