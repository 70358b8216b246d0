"""AsyncEncoderClient: the EncoderClient for asyncio. Its methods that wait or send are coroutines.

async with AsyncEncoderClient("127.0.0.1:8001", robot="arm-3") as client, client.latest() as stream:
    await stream.send(frame[None])
    reply = await stream.take(wait_ms=10)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client.asyncio_runtime import AsyncioRuntime
from robossl_client.base import ClientBase
from robossl_client.card import EncoderCard
from robossl_client.channel import Tls
from robossl_client.frames import Frames
from robossl_client.messages import Reply
from robossl_client.stream import FrameStream


class AsyncLatest(FrameStream):
    """A stream of frames from one camera, like Latest but for asyncio; `send` does not wait for a reply."""

    async def send(
        self,
        frames: Frames,
        *,
        state: npt.ArrayLike | None = None,
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> None:
        """Send the newest frames; see Latest.send."""
        await self._send(frames, captured_s, captured_at, state)

    async def take(self, *, wait_ms: float = 0.0) -> Reply | None:
        """Return the newest reply that was not taken yet, or None if there is none; see Latest.take."""
        return await self._take(wait_ms)

    async def close(self) -> None:
        """End the stream."""
        await self._close()

    async def __aenter__(self) -> AsyncLatest:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncEncoderClient(ClientBase):
    """A connection to one encoder of a server, like EncoderClient, with the same arguments and errors.

    The constructor does not connect yet; use `async with` or `await connect(...)`.
    """

    _waiting = AsyncioRuntime()

    @classmethod
    async def connect(
        cls,
        target: str = "127.0.0.1:8001",
        *,
        model: str | None = None,
        version: int | None = None,
        digest: str | None = None,
        follow: bool = False,
        robot: str | None = None,
        outputs: Sequence[str] | None = None,
        deadline_ms: float | None = None,
        tls: Tls | None = None,
        token: str | None = None,
        shared_memory: bool = False,
        card: EncoderCard | None = None,
        connect_ms: float = 10_000.0,
    ) -> AsyncEncoderClient:
        """Create a client, connect it and pin the encoder. Arguments and errors are those of EncoderClient.

        A client that has pinned an encoder accepts replies of no other encoder.
        """
        client = cls(
            target,
            model=model,
            version=version,
            digest=digest,
            follow=follow,
            robot=robot,
            outputs=outputs,
            deadline_ms=deadline_ms,
            tls=tls,
            token=token,
            shared_memory=shared_memory,
            card=card,
            connect_ms=connect_ms,
        )
        return await client.__aenter__()

    async def __call__(self, frames: Frames, *, state: npt.ArrayLike | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return the features of any number of frames, as a dict by output name; see EncoderClient."""
        return await self._features(frames, state)

    async def encode(
        self,
        frames: Frames,
        *,
        state: npt.ArrayLike | None = None,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> Reply:
        """Encode frames and return a reply with their features; see EncoderClient.encode."""
        return await self._encode(
            frames,
            state=state,
            deadline_ms=deadline_ms,
            camera=camera,
            captured_s=captured_s,
            captured_at=captured_at,
        )

    async def encode_cameras(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        *,
        deadline_ms: float | None = None,
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Encode one frame of each camera, and return features by camera name; see EncoderClient.encode_cameras."""
        return await self._encode_cameras(
            frames, deadline_ms=deadline_ms, captured_s=captured_s, captured_at=captured_at
        )

    def latest(self, *, camera: str = "") -> AsyncLatest:
        """Open a stream for a control loop, for use in `async with`; see EncoderClient.latest."""
        return self._open_stream(AsyncLatest, camera)

    async def close(self) -> None:
        """Close the connection and its streams."""
        await self._close()

    async def __aenter__(self) -> AsyncEncoderClient:
        if self._state == "new":
            await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
