"""AsyncEncoderClient: the same calls for asyncio."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from typing import Any

import grpc

from robossl_client.card import EncoderCard
from robossl_client.channel import FIRST_WAIT_S, LONGEST_WAIT_S, Tls, metadata, open_channel
from robossl_client.errors import UnavailableError, from_grpc
from robossl_client.messages import Frames, Pin, Reply, make_pin, only_model
from robossl_client.wire import CALLS, path


class AsyncEncoderClient:
    """A connection to one encoder of a server; `connect` makes it."""

    def __init__(self, channel: Any, pin: Pin, *, deadline_ms: float | None, token: str | None) -> None:
        self._channel = channel
        self._pin = pin
        self._deadline_ms = deadline_ms
        self._metadata = metadata(token)
        self._ids = itertools.count(1)

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
        card: EncoderCard | None = None,
        connect_ms: float = 10_000.0,
    ) -> AsyncEncoderClient:
        """Connect, and pin the encoder; arguments and errors are those of EncoderClient."""
        channel = open_channel(target, tls, is_async=True)
        until_s = time.monotonic() + connect_ms / 1e3

        async def ask(name: str, /, **fields: Any) -> Any:
            return await _try(channel, name, CALLS[name].request(**fields), until_s=until_s, sent=metadata(token))

        try:
            if model is None:
                model = card.name if card else only_model(await ask("RepositoryIndex"))
            about = await ask("ModelMetadata", name=model, version=str(version or ""))
            pin = make_pin(about, card=card, digest=digest, robot=robot, outputs=outputs, follow=follow)
        except BaseException:
            await channel.close()
            raise
        return cls(channel, pin, deadline_ms=deadline_ms, token=token)

    @property
    def card(self) -> EncoderCard:
        """Of the encoder that was seen first."""
        return self._pin.card

    async def encode(
        self,
        frames: Frames,
        *,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
    ) -> Reply:
        """Encode frames; as EncoderClient.encode."""
        now_s = time.monotonic()
        captured_s = now_s if captured_s is None else captured_s
        until_s = now_s + self._pin.allowed_s(deadline_ms, self._deadline_ms)
        message = self._pin.request(frames, camera=camera, frame_id=str(next(self._ids)), captured_s=captured_s)
        response = await _try(self._channel, "ModelInfer", message, until_s=until_s, sent=self._metadata)
        return self._pin.reply(response, captured_s=captured_s)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> AsyncEncoderClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _try(channel: Any, name: str, message: Any, *, until_s: float, sent: Any) -> Any:
    """Call; while the server is away, again until the deadline."""
    send = channel.unary_unary(path(name), CALLS[name].encode_request, CALLS[name].decode_response)
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await send(message, timeout=max(0.001, until_s - time.monotonic()), metadata=sent)
        except grpc.RpcError as error:
            failure = from_grpc(error)
        if not isinstance(failure, UnavailableError) or until_s - time.monotonic() <= wait_s:
            raise failure
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
