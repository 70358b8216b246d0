"""FrameStream: send the newest frame and keep the newest reply, over a stream that reconnects by itself.

`Latest` and `AsyncLatest` are its public subclasses.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy.typing as npt

from robossl_client.clocks import capture_time, seconds
from robossl_client.errors import (
    DeadlineError,
    EncoderChangedError,
    OverloadedError,
    RequestError,
    ServerFailedError,
    ServingError,
    SupersededError,
    UnavailableError,
    from_grpc,
)
from robossl_client.frames import Frames, copy_frames
from robossl_client.messages import Pin, Reply, State, failure_of
from robossl_client.shared_frames import SharedPlaces
from robossl_client.waiting import CallStream, NextRequest, Runtime

# The stream fails after this many unusable frames in a row (about a second of video).
# A single unusable frame is no reason to fail, because cameras sometimes damage frames.
MAX_REFUSED = 30
# The stream fails if the server refuses it this many times in a row. This takes more than half a second.
# The first refusals are no reason to fail: if the server has too many open streams, some of them may end soon.
_MAX_REFUSALS = 6
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5  # first and longest wait between retries while the server is unavailable


class FrameStream:
    """A stream of frames from one camera.

    Every frame without a usable reply is counted once, by reason; `num_dropped` is the sum.
    """

    def __init__(
        self,
        waiting: Runtime,
        open_call: Callable[[NextRequest], CallStream],
        pin: Pin,
        *,
        camera: str,
        deadline_ms: float | None,
        places: SharedPlaces | None,
        explain: Callable[[ServingError], Awaitable[ServingError]],
    ) -> None:
        self.num_replaced = 0  # frames that a newer frame replaced, or whose reply a newer reply replaced
        self.num_late = 0  # frames that missed their deadline before or after sending, or whose reply was too old
        self.num_refused = 0  # frames that the server refused because they were damaged or its queue was full
        self.num_lost = 0  # frames that got no reply because the connection ended or the stream failed
        self.num_connections = 0
        self._open_call = open_call
        self._explain = explain
        self._pin = pin
        self._camera = camera
        self._allowed_s = pin.allowed_s(deadline_ms)
        self._places = places
        self._changed = waiting.condition()
        # Frames to send next, with their number, their state and their capture time.
        self._next: tuple[int, Frames, State | None, float] | None = None
        self._captured_s: dict[str, float] = {}  # capture time of each frame that was sent, by frame id
        self._reply: Reply | None = None
        self._reply_captured_s = 0.0
        self._newest_id = 0  # highest frame id of all replies
        self._num_sent = 0
        self._num_refused_in_a_row = 0
        self._num_refusals = 0
        self._wait_s = _FIRST_WAIT_S
        self._failure: ServingError | None = None
        self._is_closed = False
        self._connection = 0  # number of the open connection; 0 for none
        self._call: CallStream | None = None
        self._join = waiting.start(self._run())

    @property
    def num_dropped(self) -> int:
        """Number of frames without a usable reply."""
        return self.num_replaced + self.num_late + self.num_refused + self.num_lost

    async def _send(
        self, frames: Frames, captured_s: float | None, captured_at: float | None, state: npt.ArrayLike | None
    ) -> None:
        self._raise_if_over()
        values = self._pin.check(frames, state)
        captured_s = capture_time(captured_s, captured_at)
        frames, values = copy_frames(frames), None if values is None else values.copy()
        async with self._changed:
            self._raise_if_over()
            self._num_sent += 1
            if self._next is not None:
                self.num_replaced += 1
            self._next = (self._num_sent, frames, values, captured_s)
            self._changed.notify_all()

    async def _take(self, wait_ms: float) -> Reply | None:
        until_s = time.monotonic() + seconds("wait_ms", wait_ms)
        async with self._changed:
            newest = self._num_sent
            while True:
                left_s = max(0.0, until_s - time.monotonic())
                # An older reply may be here already. It is taken only if the reply to the newest frame does not come.
                await self._changed.wait_for(lambda: self._is_settled(newest) or self._is_over(), left_s)
                if self._reply is None:
                    self._raise_if_over()
                    return None
                reply, self._reply = self._reply, None
                age_s = time.monotonic() - self._reply_captured_s
                if age_s <= self._allowed_s:
                    return dataclasses.replace(reply, age_s=age_s)
                self.num_late += 1

    def _is_settled(self, number: int) -> bool:
        """Return whether a reply is here, and no better reply can come for this frame.

        This holds if the reply is to this frame or a newer one, or if no reply to this frame is expected any more.
        """
        if self._reply is None:
            return False
        is_next = self._next is not None and self._next[0] == number
        return int(self._reply.frame_id) >= number or not (is_next or str(number) in self._captured_s)

    async def _close(self) -> None:
        async with self._changed:
            self._is_closed = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        await self._join()
        if self._places is not None:
            await self._places.close(for_good=True)

    def _is_over(self) -> bool:
        return self._is_closed or self._failure is not None

    def _raise_if_over(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._is_closed:
            raise RequestError("the stream is closed; open another one with latest()")

    async def _run(self) -> None:
        while not self._is_over():
            try:
                await self._connect()
            except grpc.RpcError as error:
                await self._disconnected(await self._explain(from_grpc(error)))
            if self._places is not None:
                await self._places.close()
            async with self._changed:
                self.num_lost += len(self._captured_s)
                self._captured_s.clear()
                self._connection = 0
                self._changed.notify_all()
                await self._changed.wait_for(self._is_over, self._wait_s)
                self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)

    async def _connect(self) -> None:
        """Open the stream, and receive replies until it ends."""
        async with self._changed:
            self.num_connections += 1
            self._connection = number = self.num_connections
        call = self._open_call(lambda: self._next_request(number))
        async with self._changed:
            self._call = call
            is_over = self._is_over()
        if is_over:
            call.cancel()
        while (response := await call.read()) is not None:
            self._wait_s, self._num_refusals = _FIRST_WAIT_S, 0
            await self._received(response)

    async def _disconnected(self, error: ServingError) -> None:
        """Handle the error that ended a connection. A permanent error ends the stream; otherwise `_run` reconnects."""
        self._num_refusals = self._num_refusals + 1 if isinstance(error, OverloadedError) else 0
        is_passing = 0 < self._num_refusals < _MAX_REFUSALS
        if not is_passing and not isinstance(error, (UnavailableError, SupersededError, DeadlineError)):
            async with self._changed:
                self._fail(error)

    async def _next_request(self, number: int) -> Any:
        """Wait for the next request of a connection and return it, or None when the connection has ended."""
        while True:
            async with self._changed:
                await self._changed.wait_for(
                    lambda: self._next is not None or self._is_over() or self._connection != number
                )
                if self._is_over() or self._connection != number or self._next is None:
                    return None
                (frame_number, frames, state, captured_s), self._next = self._next, None
                if time.monotonic() - captured_s > self._allowed_s:
                    self.num_late += 1
                    self._changed.notify_all()
                    continue
                frame_id = str(frame_number)
                self._captured_s[frame_id] = captured_s
            try:
                return await self._request(frame_id, frames, state, captured_s)
            except DeadlineError:
                async with self._changed:
                    self.num_late += self._captured_s.pop(frame_id, None) is not None
                    self._changed.notify_all()
            except UnavailableError:
                return None
            except ServingError as error:
                async with self._changed:
                    self._fail(error)
                return None

    async def _request(self, frame_id: str, frames: Frames, state: State | None, captured_s: float) -> Any:
        region = None if self._places is None else await self._places.put(frame_id, frames)
        left_s = captured_s + self._allowed_s - time.monotonic()
        return self._pin.request(
            frames,
            camera=self._camera,
            frame_id=frame_id,
            captured_s=captured_s,
            state=state,
            region=region,
            timeout_ms=max(0.0, 1e3 * left_s),
        )

    async def _received(self, response: Any) -> None:
        message, failure = response.infer_response, failure_of(response)
        if isinstance(failure, EncoderChangedError):
            failure = await self._explain(failure)
        if self._places is not None:
            if isinstance(failure, RequestError) and await self._places.is_lost(message.id):
                failure = UnavailableError("the region of this frame is gone")
            await self._places.free(message.id)
        async with self._changed:
            captured_s = self._captured_s.pop(message.id, None)
            if failure is not None:
                self._not_served(failure)
            # The capture time is None if the stream has already given up this frame.
            elif captured_s is not None:
                self._served(message, captured_s)
            self._changed.notify_all()

    def _served(self, message: Any, captured_s: float) -> None:
        try:
            reply = self._pin.reply(message, captured_s=captured_s)
        except ServingError as error:
            self.num_refused += 1
            self._fail(error)
            return
        self._num_refused_in_a_row = 0
        if reply.age_s > self._allowed_s:
            self.num_late += 1
        elif int(reply.frame_id) < self._newest_id:  # the reply to a newer frame came first
            self.num_replaced += 1
        else:
            # If the previous reply was not taken yet, this reply replaces it.
            self.num_replaced += self._reply is not None
            self._newest_id = int(reply.frame_id)
            self._reply, self._reply_captured_s = reply, captured_s

    def _not_served(self, failure: ServingError) -> None:
        """Count a frame that got an error instead of features; end the stream if later frames would fail too."""
        if isinstance(failure, SupersededError):
            self.num_replaced += 1
        elif isinstance(failure, DeadlineError):
            self.num_late += 1
        elif isinstance(failure, UnavailableError):
            self.num_lost += 1
        elif isinstance(failure, OverloadedError):
            self.num_refused += 1
        elif isinstance(failure, (RequestError, ServerFailedError)):
            self.num_refused += 1
            self._num_refused_in_a_row += 1
            if self._num_refused_in_a_row >= MAX_REFUSED:
                self._fail(type(failure)(f"{MAX_REFUSED} frames in a row were refused; the last one: {failure}"))
        else:
            self.num_refused += 1
            self._fail(failure)

    def _fail(self, error: ServingError) -> None:
        """End the stream permanently, because of an error."""
        if self._failure is None:
            self._failure = error
            self.num_lost += self._next is not None
            self._next = None
            if self._call is not None:
                self._call.cancel()
        self._changed.notify_all()
