"""Latest: a stream for a control loop, which sends its newest frame and takes the newest reply."""

from __future__ import annotations

from robossl_client.frames import Frames
from robossl_client.messages import Reply
from robossl_client.stream import FrameStream
from robossl_client.waiting import run


class Latest(FrameStream):
    """A stream of one camera; `send` never waits, and a frame that could not leave yet is replaced by a newer one."""

    def send(self, frames: Frames, *, captured_s: float | None = None, captured_at: float | None = None) -> None:
        """Hand over the newest frames, (1, h, w, 3) or a list of one JPEG.

        Args:
            frames: As EncoderClient.encode takes them; copied here, so one buffer may serve every frame.
            captured_s: When they were taken, by time.monotonic(); now unless given.
            captured_at: The same by the wall clock, time.time(), as ROS stamps are.

        Raises:
            RequestError: these are no frames, the stamp cannot be right, or the stream is closed.
            ServingError: the stream has failed for good: the server refused many frames in a row or keeps refusing the
                stream, or the encoder has changed.
        """
        run(self._send(frames, captured_s, captured_at))

    def take(self, *, wait_ms: float = 0.0) -> Reply | None:
        """Return the newest reply that was not taken yet, or None if none comes within the wait.

        A reply older than the deadline, counted from the capture of its frame, is never given.

        Raises:
            RequestError: the stream is closed.
            ServingError: the stream has failed for good.
        """
        return run(self._take(wait_ms))

    def close(self) -> None:
        """End the stream."""
        run(self._close())

    def __enter__(self) -> Latest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
