"""Latest: the newest frame out, the newest reply in, over one stream that comes back when the server does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from robossl_client.errors import (
    DeadlineError,
    OverloadedError,
    RequestError,
    ServingError,
    SupersededError,
    UnavailableError,
    from_grpc,
)
from robossl_client.messages import Frames, Pin, Reply, failure_of
from robossl_client.shared_frames import SharedPlaces

_PASSING = (SupersededError, DeadlineError, OverloadedError)  # the next frame may well be served
_REFUSALS = 6  # in a row, over half a second: one may be for streams that end just now, so many are for good
DAMAGED_IN_A_ROW = 30  # frames: one second of a camera at 30 Hz; then the stream fails
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.02, 0.5  # between tries while the server is away


class Latest:
    """A stream of one camera; `send` never waits, and a frame that could not leave yet is replaced by a newer one."""

    def __init__(
        self,
        open_stream: Callable[[Iterator[Any]], Any],
        pin: Pin,
        *,
        camera: str,
        deadline_ms: float | None = None,
        places: SharedPlaces | None = None,
    ) -> None:
        self._deadline_ms = deadline_ms  # of each frame; None: the server's
        self._open_stream = open_stream
        self._places = places
        self._pin = pin
        self._camera = camera
        self._changed = threading.Condition()
        self._next: tuple[int, Frames, float] | None = None  # waits to be sent
        self._captured_s: dict[str, float] = {}  # of what was sent, by id
        self._reply: Reply | None = None
        self._newest_id = 0  # of all replies so far
        self._num_sent = 0
        self._failure: ServingError | None = None
        self._is_closed = False
        self._call: Any = None
        self._num_damaged = 0  # in a row
        # frames replaced by newer ones, here or at the server, shed, damaged, or lost with a connection
        self.num_dropped = 0
        self.num_connections = 0
        self._thread = threading.Thread(target=self._run, name="robossl-latest", daemon=True)
        self._thread.start()

    def send(self, frames: Frames, *, captured_s: float | None = None) -> None:
        """Hand over the newest frames, (1, h, w, 3) or a list of one JPEG.

        Raises:
            ServingError: the stream has failed for good: what was sent is no image, `DAMAGED_IN_A_ROW` images were
                damaged, the server keeps refusing the stream, or the encoder has changed.
        """
        with self._changed:
            self._raise_failure()
            self._num_sent += 1
            if self._next is not None:
                self.num_dropped += 1
            self._next = (self._num_sent, frames, time.monotonic() if captured_s is None else captured_s)
            self._changed.notify_all()

    def take(self, *, wait_ms: float = 0.0) -> Reply | None:
        """The newest reply that was not taken yet; None where there is none within the wait.

        Raises:
            ServingError: the stream has failed for good.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._reply is not None or self._failure is not None, wait_ms / 1e3)
            if self._reply is None:
                self._raise_failure()
            reply, self._reply = self._reply, None
            return reply

    def close(self) -> None:
        """End the stream."""
        with self._changed:
            self._is_closed = True
            call = self._call
            self._changed.notify_all()
        if call is not None:
            call.cancel()
        self._thread.join()
        if self._places is not None:
            self._places.close(for_good=True)

    def __enter__(self) -> Latest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        wait_s, num_refused = _FIRST_WAIT_S, 0
        while not self._is_closed and self._failure is None:
            done = threading.Event()  # of this connection: its requests end with it
            try:
                call = self._open_stream(self._requests(done))
                with self._changed:
                    self._call = call
                    self.num_connections += 1
                if self._is_closed:
                    call.cancel()
                for response in call:
                    wait_s, num_refused = _FIRST_WAIT_S, 0
                    self._received(response)
            except grpc.RpcError as error:
                failure = from_grpc(error)
                num_refused = num_refused + 1 if isinstance(failure, OverloadedError) else 0
                if num_refused in (0, _REFUSALS):
                    self._failed(failure, passes=isinstance(failure, (SupersededError, DeadlineError)))
            finally:
                done.set()
            if self._places is not None:
                self._places.close()
            with self._changed:
                self.num_dropped += len(self._captured_s)
                self._captured_s.clear()
                self._changed.notify_all()
                if not self._is_closed:
                    self._changed.wait_for(lambda: self._is_closed, wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _requests(self, done: threading.Event) -> Iterator[Any]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._is_closed or done.is_set())
                if self._is_closed or done.is_set() or self._next is None:
                    return
                (number, frames, captured_s), self._next = self._next, None
                self._captured_s[str(number)] = captured_s
            try:
                region = None if self._places is None else self._places.put(str(number), frames)
                request = self._pin.request(
                    frames,
                    camera=self._camera,
                    frame_id=str(number),
                    captured_s=captured_s,
                    region=region,
                    timeout_ms=self._deadline_ms,
                )
            except ServingError as error:
                self._failed(error, passes=isinstance(error, DeadlineError))
                return
            yield request

    def _received(self, response: Any) -> None:
        message, failure = response.infer_response, failure_of(response)
        passes = isinstance(failure, _PASSING) or self._is_damaged(message, failure)
        if self._places is not None:
            passes |= isinstance(failure, RequestError) and self._places.is_lost(message.id)
            self._places.free(message.id)
        with self._changed:
            captured_s = self._captured_s.pop(message.id, None)
        if failure is not None:
            self._failed(failure, passes=passes)
            return
        if captured_s is None:
            return
        try:
            reply = self._pin.reply(message, captured_s=captured_s)
        except ServingError as error:
            self._failed(error)
            return
        with self._changed:
            if int(reply.frame_id) > self._newest_id:  # a reply that was overtaken is of no use
                self._newest_id = int(reply.frame_id)
                self._reply = reply
                self._changed.notify_all()

    def _is_damaged(self, message: Any, failure: ServingError | None) -> bool:
        """Whether a frame cannot be used but the camera's next one may be good.

        The server marks damaged images. On a stream that has been served, whatever a frame is refused for is damage.
        """
        if not isinstance(failure, RequestError):
            self._num_damaged = 0
            return False
        self._num_damaged += 1
        is_marked = "damaged" in message.parameters or self._newest_id > 0
        return is_marked and self._num_damaged < DAMAGED_IN_A_ROW

    def _failed(self, error: ServingError, *, passes: bool = False) -> None:
        """Note a failure; one that passes counts a dropped frame, and a server that is away is tried again."""
        with self._changed:
            if passes:
                self.num_dropped += 1
            elif not isinstance(error, UnavailableError) and self._failure is None:
                self._failure = error
                if self._call is not None:
                    self._call.cancel()
            self._changed.notify_all()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
