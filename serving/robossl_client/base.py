"""ClientBase: the common code of EncoderClient and AsyncEncoderClient."""

from __future__ import annotations

import functools
import itertools
import math
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import grpc
import numpy as np
import numpy.typing as npt

from robossl_client.card import EncoderCard
from robossl_client.channel import FIRST_WAIT_S, LONGEST_WAIT_S, Tls, metadata, open_channel
from robossl_client.clocks import capture_time, seconds
from robossl_client.errors import EncoderChangedError, RequestError, ServingError, UnavailableError, from_grpc
from robossl_client.frames import Frames, stack_cameras
from robossl_client.handshake import explain
from robossl_client.messages import Pin, Reply, compare_weights, make_pin, only_model
from robossl_client.shared_frames import SharedFrames, SharedPlaces
from robossl_client.stream import FrameStream
from robossl_client.waiting import CallStream, NextRequest, Runtime
from robossl_client.wire import CALLS, path

_COMPARE_S = 2.0  # time limit for asking how the server's new encoder differs from the pinned one
_CALL_FRAMES = 64  # maximum number of frames per call; larger inputs are split
S = TypeVar("S", bound=FrameStream)


class ClientBase:
    """A connection to one encoder of a server; replies of any other encoder are refused. See EncoderClient."""

    _waiting: ClassVar[Runtime]
    _pin: Pin

    def __init__(
        self,
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
    ) -> None:
        """Connect to the server, and pin its encoder: accept replies of no other encoder from then on.

        An AsyncEncoderClient does both later, in `async with` or `connect`.

        Args:
            target: host:port of the server.
            model: Name of the model; not needed if the server has only one.
            version: Version number; default: the current version.
            digest: Digest of the weights that the encoder must have.
            follow: Always use the server's current encoder instead of pinning the first one.
            robot: Name of the robot. The server runs the robot's newest frame first and drops older waiting frames.
                Without a name, requests are batch requests. The server answers all of them, in order, after the
                requests of robots.
            outputs: The encoder's outputs to return; default: all.
            deadline_ms: How long a call may take. In a stream, how old a frame may be when the client takes its reply.
                Default: 1 s for a robot, 60 s for batch requests.
            tls: Certificates for an encrypted connection.
            token: The server's token.
            shared_memory: Pass pixels in shared memory; needs a server on this host with --shared-memory.
            card: The encoder's card, for servers that send no cards, such as Triton.
            connect_ms: How long to wait for the server while connecting.

        Raises:
            UnavailableError: the server cannot be reached.
            UnknownModelError: the model or version is not loaded.
            EncoderChangedError: the encoder's weights do not have this `digest`.
            DeniedError: the token or certificate is wrong, or only one side speaks TLS.
            RequestError: an argument cannot be used.
        """
        self._target, self._tls = target, tls
        self._model, self._version, self._digest, self._follow = model, version, digest, follow
        self._robot, self._outputs, self._card = robot, outputs, card
        self._deadline_ms = deadline_ms
        if deadline_ms is not None:
            seconds("deadline_ms", deadline_ms)
        self._connect_s = seconds("connect_ms", connect_ms)
        self._metadata = metadata(token)
        self._ids = itertools.count(1)
        self._channel: Any = None
        self._state: Literal["new", "open", "closed"] = "new"
        self._shared = SharedFrames(self._ask, self._waiting) if shared_memory else None
        self._streams: weakref.WeakSet[FrameStream] = weakref.WeakSet()
        self._begin()

    def _begin(self) -> None:
        """Connect; the constructor calls this at its end.

        Clients for an event loop do nothing here, because they connect later.
        """

    @property
    def card(self) -> EncoderCard:
        """The card of the pinned encoder."""
        if self._state == "new":
            self._check_open()
        return self._pin.card

    async def _connect(self) -> None:
        self._channel = open_channel(self._target, self._tls, is_async=self._waiting.is_async)
        self._infer = self._method("ModelInfer")
        try:
            until_s = time.monotonic() + self._connect_s
            name = self._model or (self._card.name if self._card else None)
            if name is None:
                name = only_model(await self._ask("RepositoryIndex", until_s=until_s))
            about = await self._ask("ModelMetadata", until_s=until_s, name=name, version=str(self._version or ""))
            self._pin = make_pin(
                about,
                card=self._card,
                digest=self._digest,
                robot=self._robot,
                outputs=self._outputs,
                follow=self._follow,
            )
        except BaseException:
            await self._close()
            raise
        self._state = "open"

    async def _features(self, frames: Frames, state: npt.ArrayLike | None) -> dict[str, npt.NDArray[Any]]:
        self._check_open()
        values = self._pin.check(frames, state)
        places = [slice(at, at + _CALL_FRAMES) for at in range(0, len(frames), _CALL_FRAMES)]
        for _ in range(2):
            replies = [
                await self._encode(frames[each], state=None if values is None else values[each]) for each in places
            ]
            if len({(reply.artefact, reply.digest, reply.version) for reply in replies}) == 1:
                parts = [reply.features for reply in replies]
                return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        raise EncoderChangedError("the encoder changed twice while these frames were encoded; encode them again")

    async def _encode(
        self,
        frames: Frames,
        *,
        state: npt.ArrayLike | None = None,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
        captured_at: float | None = None,
    ) -> Reply:
        self._check_open()
        values = self._pin.check(frames, state)
        if deadline_ms is not None:
            seconds("deadline_ms", deadline_ms)
        until_s = time.monotonic() + self._pin.allowed_s(deadline_ms, self._deadline_ms)
        captured_s = capture_time(captured_s, captured_at)
        frame_id = str(next(self._ids))

        async def send(region: Mapping[str, Any] | None) -> Any:
            message = self._pin.request(
                frames, camera=camera, frame_id=frame_id, captured_s=captured_s, state=values, region=region
            )
            return await self._try(self._infer, message, until_s=until_s)

        response = await (send(None) if self._shared is None else self._shared.send(frames, send, until_s=until_s))
        return self._pin.reply(response, captured_s=captured_s)

    async def _encode_cameras(
        self,
        frames: Mapping[str, npt.NDArray[np.uint8]],
        *,
        deadline_ms: float | None,
        captured_s: float | None,
        captured_at: float | None,
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        batch = stack_cameras(frames)
        reply = await self._encode(
            batch,
            deadline_ms=deadline_ms,
            camera="+".join(sorted(frames)),
            captured_s=captured_s,
            captured_at=captured_at,
        )
        return {
            name: {output: values[row : row + 1] for output, values in reply.features.items()}
            for row, name in enumerate(frames)
        }

    def _open_stream(self, kind: type[S], camera: str) -> S:
        self._check_open()
        if self._pin.robot is None:
            raise RequestError("a stream of newest frames belongs to a robot; connect with robot=")
        method = self._method("ModelStreamInfer")

        def open_call(next_request: NextRequest) -> CallStream:
            return self._waiting.stream(method, next_request, metadata=self._metadata)

        stream = kind(
            self._waiting,
            open_call,
            self._pin,
            camera=camera,
            deadline_ms=self._deadline_ms,
            places=None if self._shared is None else SharedPlaces(self._ask, self._waiting),
            explain=self._explained,
        )
        self._streams.add(stream)
        return stream

    async def _close(self) -> None:
        for stream in list(self._streams):
            await stream._close()
        if self._shared is not None:
            await self._shared.close()
        self._state = "closed"
        if self._channel is not None:
            await self._waiting.answer(self._channel.close)

    def _check_open(self) -> None:
        if self._state == "new":
            raise RequestError(
                "the client is not connected; use it in `async with`, or create it by `await connect(...)`"
            )
        if self._state == "closed":
            raise RequestError("the client is closed; create another one")

    def _method(self, name: str) -> Any:
        call = CALLS[name]
        kind = self._channel.stream_stream if call.streams else self._channel.unary_unary
        return kind(path(name), call.encode_request, call.decode_response)

    async def _ask(self, name: str, /, *, until_s: float | None = None, **fields: Any) -> Any:
        """Make the call `name` with a request of the given fields, and return the response."""
        until_s = time.monotonic() + self._pin.allowed_s(self._deadline_ms) if until_s is None else until_s
        return await self._try(self._method(name), CALLS[name].request(**fields), until_s=until_s)

    async def _try(self, send: Any, message: Any, *, until_s: float) -> Any:
        """Make a call and return the response; retry until the deadline while the server is unavailable."""
        wait_s = FIRST_WAIT_S
        while True:
            timeout_s = max(0.001, until_s - time.monotonic())
            try:
                return await self._waiting.answer(
                    functools.partial(send, message, timeout=timeout_s, metadata=self._metadata)
                )
            except grpc.RpcError as error:
                failure = from_grpc(error)
            failure = await self._explained(failure, until_s)
            if not isinstance(failure, UnavailableError) or until_s - time.monotonic() <= wait_s:
                raise failure
            await self._waiting.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    async def _explained(self, error: ServingError, until_s: float = math.inf) -> ServingError:
        if isinstance(error, EncoderChangedError) and self._state == "open":
            return EncoderChangedError(f"{error}. {await self._compare(until_s)}")
        if not isinstance(error, UnavailableError):
            return error
        return await self._waiting.aside(lambda: explain(error, self._tls))

    async def _compare(self, until_s: float) -> str:
        """Say how the server's current encoder differs from the pinned one."""
        ask = CALLS["ModelMetadata"].request(name=self._pin.card.name)
        timeout_s = max(0.001, min(_COMPARE_S, until_s - time.monotonic()))
        send = functools.partial(self._method("ModelMetadata"), ask, timeout=timeout_s, metadata=self._metadata)
        try:
            return compare_weights(self._pin.card, await self._waiting.answer(send))
        except grpc.RpcError:
            return "The server did not say whether the weights of the two differ"
