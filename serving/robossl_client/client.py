"""EncoderClient: computes features of frames on a server.

It has the same interface (`FrameEncoder`) as encoders in torch and onnxruntime, so it can replace them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client.base import ClientBase
from robossl_client.blocking_runtime import BlockingRuntime
from robossl_client.frames import Frames
from robossl_client.latest import Latest
from robossl_client.messages import Reply
from robossl_client.waiting import run


class EncoderClient(ClientBase):
    """A connection to one encoder of a server.

    The client pins the first encoder that it gets, that is, accepts no other. If the server changes to another encoder,
    calls raise EncoderChangedError, because the new embeddings would not be comparable with earlier embeddings.
    """

    _waiting = BlockingRuntime()

    def _begin(self) -> None:
        run(self._connect())

    def __call__(self, frames: Frames, *, state: npt.ArrayLike | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return the features of any number of (b, h, w, 3) RGB frames, as a dict by output name.

        The same encoder encodes all frames, even if they need several calls. If the model has a policy, "action" is
        among the outputs.

        Raises:
            EncoderChangedError: the encoder changed between the calls, and again in a second attempt.
            ServingError: for the same reasons as in `encode`.
        """
        return run(self._features(frames, state))

    def encode(
        self,
        frames: Frames,
        *,
        state: npt.ArrayLike | None = None,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> Reply:
        """Encode frames, and return a reply with their features.

        While the server is unavailable, the client retries the call until the deadline.

        Args:
            frames: (b, h, w, 3) uint8 RGB, or a list of JPEGs or PNGs of one size.
            state: (b, v), the robot's own state at each frame, for a policy that takes one (`card.policy.state`).
            deadline_ms: How long the call may take; default: the client's deadline.
            camera: Name of the robot's camera. A newer frame replaces a waiting frame only of the same camera.
            captured_s: Capture time by time.monotonic(); default: now.
            captured_at: Capture time by the wall clock, time.time(), as in ROS stamps.

        Raises:
            RequestError: the frames, the state or the capture time cannot be used.
            ServingError: see `errors.py` for its subclasses.
        """
        return run(
            self._encode(
                frames,
                state=state,
                deadline_ms=deadline_ms,
                camera=camera,
                captured_s=captured_s,
                captured_at=captured_at,
            )
        )

    def encode_cameras(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        *,
        deadline_ms: float | None = None,
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Encode one (h, w, 3) frame of each camera in one call; return features by camera name, then by output name.

        Raises:
            RequestError: the frames have different sizes.
            ServingError: for the same reasons as in `encode`.
        """
        return run(
            self._encode_cameras(frames, deadline_ms=deadline_ms, captured_s=captured_s, captured_at=captured_at)
        )

    def latest(self, *, camera: str = "") -> Latest:
        """Open a stream, by which a control loop sends each frame and takes the newest reply.

        The stream reconnects by itself. It drops frames that cannot meet the client's `deadline_ms`, and replies that
        come too late.

        Raises:
            RequestError: the client has no robot name.
        """
        return self._open_stream(Latest, camera)

    def close(self) -> None:
        """Close the connection and its streams."""
        run(self._close())

    def __enter__(self) -> EncoderClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
