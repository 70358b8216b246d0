"""EncoderClient: frames in, features out, from a server; a `FrameEncoder` like those in torch and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client.base import ClientBase
from robossl_client.frames import Frames
from robossl_client.latest import Latest
from robossl_client.messages import Reply
from robossl_client.waiting import Blocking, run


class EncoderClient(ClientBase):
    """A connection to one encoder of a server.

    The encoder seen first is pinned: should the server change to another, calls raise EncoderChangedError instead of
    giving embeddings that cannot be compared.
    """

    _waiting = Blocking()

    def _begin(self) -> None:
        run(self._connect())

    def __call__(self, frames: Frames) -> dict[str, npt.NDArray[Any]]:
        """Features of (b, h, w, 3) RGB frames by output name, all of one encoder; any number of frames.

        Raises:
            EncoderChangedError: while they were encoded the encoder changed, and once more when they were sent again.
            ServingError: as `encode`.
        """
        return run(self._features(frames))

    def encode(
        self,
        frames: Frames,
        *,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> Reply:
        """Encode frames.

        While the server is away it is tried again until the deadline.

        Args:
            frames: (b, h, w, 3) uint8 RGB, or a list of JPEGs or PNGs of one size.
            deadline_ms: How long it may take; the client's unless given.
            camera: Which camera of the robot they are from; each has its own newest frame.
            captured_s: When they were taken, by time.monotonic(); now unless given.
            captured_at: The same by the wall clock, time.time(), as ROS stamps are.

        Raises:
            RequestError: these are no frames, or the stamp cannot be right.
            ServingError: one of its kinds, by what can be done about it.
        """
        return run(
            self._encode(frames, deadline_ms=deadline_ms, camera=camera, captured_s=captured_s, captured_at=captured_at)
        )

    def encode_cameras(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        *,
        deadline_ms: float | None = None,
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Features of one (h, w, 3) frame of each camera, taken together, by camera; one call in all.

        Raises:
            RequestError: the frames are of different sizes.
            ServingError: as `encode`.
        """
        return run(
            self._encode_cameras(frames, deadline_ms=deadline_ms, captured_s=captured_s, captured_at=captured_at)
        )

    def latest(self, *, camera: str = "") -> Latest:
        """A stream for a control loop: send each frame, take the newest reply; it reconnects by itself.

        A frame that cannot be ready by the client's `deadline_ms` is dropped, and so is a reply that is older.

        Raises:
            RequestError: the client has no robot.
        """
        return self._open_stream(Latest, camera)

    def close(self) -> None:
        """Close the connection and its streams."""
        run(self._close())

    def __enter__(self) -> EncoderClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
