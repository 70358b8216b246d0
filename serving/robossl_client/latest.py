"""Latest: a stream for a control loop that sends its newest frame and takes the newest reply."""

from __future__ import annotations

import numpy.typing as npt

from robossl_client.frames import Frames
from robossl_client.messages import Reply
from robossl_client.stream import FrameStream
from robossl_client.waiting import run


class Latest(FrameStream):
    """A stream of frames from one camera. `send` never waits; a newer frame replaces a frame that is not sent yet."""

    def send(
        self,
        frames: Frames,
        *,
        state: npt.ArrayLike | None = None,
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> None:
        """Send the newest frames, (1, h, w, 3) or a list of one JPEG.

        Args:
            frames: Frames as in EncoderClient.encode. They are copied, so the caller may reuse its buffer.
            state: (1, v), the robot's own state, for a policy that takes one; it is copied too.
            captured_s: Capture time by time.monotonic(); default: now.
            captured_at: Capture time by the wall clock, time.time(), as in ROS stamps.

        Raises:
            RequestError: the frames, the state or the capture time cannot be used, or the stream is closed.
            ServingError: the stream has failed, because the server refused many frames in a row or keeps refusing the
                stream, or because the encoder has changed.
        """
        run(self._send(frames, captured_s, captured_at, state))

    def take(self, *, wait_ms: float = 0.0) -> Reply | None:
        """Return the newest reply that was not taken yet.

        Wait up to `wait_ms` for the reply to the newest frame that was sent. If this reply does not come, return an
        older reply, or None if there is none. A reply is dropped if its frame was captured longer ago than the deadline
        allows.

        Raises:
            RequestError: the stream is closed.
            ServingError: the stream has failed.
        """
        return run(self._take(wait_ms))

    def close(self) -> None:
        """End the stream."""
        run(self._close())

    def __enter__(self) -> Latest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
