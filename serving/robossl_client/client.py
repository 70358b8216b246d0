"""EncoderClient: frames in, features out, from a server; it is an `Encode` like the encoder in torch or onnxruntime."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt

from robossl_client.card import EncoderCard
from robossl_client.channel import FIRST_WAIT_S, LONGEST_WAIT_S, Tls, metadata, open_channel
from robossl_client.errors import EncoderChangedError, RequestError, UnavailableError, from_grpc
from robossl_client.latest import Latest
from robossl_client.messages import Frames, Reply, make_pin, only_model
from robossl_client.shared_frames import SharedFrames, SharedPlaces
from robossl_client.wire import CALLS, path


class EncoderClient:
    """A connection to one encoder of a server.

    The encoder seen first is pinned: should the server change to another, calls raise EncoderChangedError instead of
    giving embeddings that cannot be compared.
    """

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
        """Connect, and pin the encoder.

        Args:
            target: host:port.
            model: Its name; not needed where the server has one only.
            version: A version; the current one unless given.
            digest: Weights that the encoder must have.
            follow: Take whatever encoder is current, and change with it.
            robot: Name of the robot: its newest frame goes first, and older ones that still wait are dropped.
                Without it requests are batch requests: all are answered, in their order, after those of robots.
            outputs: Which of the encoder's outputs to get; all unless given.
            deadline_ms: How long a call, or a frame of a stream, may take; 1 s for a robot and 60 s for batch requests
                unless given.
            tls: For an encrypted connection.
            token: The server's token.
            shared_memory: Pass pixels in shared memory; for a server on this host that allows it.
            card: For servers that have no card, such as Triton.
            connect_ms: How long to wait for the server now.

        Raises:
            UnavailableError: no server there.
            UnknownModelError: no such model.
            EncoderChangedError: the encoder has other weights than `digest`.
            DeniedError: the token or certificate is wrong.
        """
        self._channel = open_channel(target, tls)
        self._metadata = metadata(token)
        self._deadline_ms = deadline_ms
        self._ids = itertools.count(1)
        self._infer = self._channel.unary_unary(
            path("ModelInfer"), CALLS["ModelInfer"].encode_request, CALLS["ModelInfer"].decode_response
        )
        self._shared = SharedFrames(self._call) if shared_memory else None
        try:
            until_s = time.monotonic() + connect_ms / 1e3
            if model is None:
                model = card.name if card else only_model(self._call("RepositoryIndex", until_s=until_s))
            asked = self._call("ModelMetadata", until_s=until_s, name=model, version=str(version or ""))
            self._pin = make_pin(asked, card=card, digest=digest, robot=robot, outputs=outputs, follow=follow)
        except BaseException:
            self.close()
            raise

    @property
    def card(self) -> EncoderCard:
        """Of the encoder that was seen first."""
        return self._pin.card

    def __call__(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Features of (b, h, w, 3) RGB frames by output name, all of one encoder; any number of frames.

        Raises:
            EncoderChangedError: while they were encoded the encoder changed, and once more when they were sent again.
            ServingError: as `encode`.
        """
        size = 64
        for _ in range(2):
            replies = [self.encode(frames[at : at + size]) for at in range(0, max(1, len(frames)), size)]
            if len({(reply.artefact, reply.digest, reply.version) for reply in replies}) == 1:
                parts = [reply.features for reply in replies]
                return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        raise EncoderChangedError("the encoder changed twice while these frames were encoded; encode them again")

    def encode(
        self,
        frames: Frames,
        *,
        deadline_ms: float | None = None,
        camera: str = "",
        captured_s: float | None = None,
    ) -> Reply:
        """Encode frames.

        While the server is away it is tried again until the deadline.

        Args:
            frames: (b, h, w, 3) uint8 RGB, or a list of JPEGs or PNGs of one size.
            deadline_ms: How long it may take; the client's unless given.
            camera: Which camera of the robot they are from; each has its own newest frame.
            captured_s: When they were taken, by time.monotonic(); now unless given.

        Raises:
            ServingError: one of its kinds, by what can be done about it.
        """
        now_s = time.monotonic()
        captured_s = now_s if captured_s is None else captured_s
        until_s = now_s + self._pin.allowed_s(deadline_ms, self._deadline_ms)
        frame_id = str(next(self._ids))

        def send(region: Mapping[str, Any] | None) -> Any:
            message = self._pin.request(frames, camera=camera, frame_id=frame_id, captured_s=captured_s, region=region)
            return self._try(self._infer, message, until_s=until_s)

        response = send(None) if self._shared is None else self._shared.send(frames, send, until_s=until_s)
        return self._pin.reply(response, captured_s=captured_s)

    def encode_cameras(
        self, frames: Mapping[str, npt.NDArray[np.uint8]], *, deadline_ms: float | None = None
    ) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Features of one (h, w, 3) frame of each camera, taken together, by camera; one call in all.

        Raises:
            RequestError: the frames are of different sizes.
            ServingError: as `encode`.
        """
        if len({frame.shape for frame in frames.values()}) != 1:
            shapes = ", ".join(f"{name} {frame.shape}" for name, frame in frames.items())
            raise RequestError(f"cameras of one call have frames of one size, got {shapes}; call encode for each")
        camera = "+".join(sorted(frames))
        features = self.encode(np.stack(list(frames.values())), deadline_ms=deadline_ms, camera=camera).features
        return {
            name: {output: values[row : row + 1] for output, values in features.items()}
            for row, name in enumerate(frames)
        }

    def latest(self, *, camera: str = "") -> Latest:
        """A stream for a control loop: send each frame, take the newest reply; it reconnects by itself.

        A frame that cannot be ready by the client's `deadline_ms` is dropped.

        Raises:
            RequestError: the client has no robot.
        """
        if self._pin.robot is None:
            raise RequestError("a stream of newest frames belongs to a robot; connect with robot=")
        call = CALLS["ModelStreamInfer"]
        open_stream = self._channel.stream_stream(path("ModelStreamInfer"), call.encode_request, call.decode_response)
        places = None if self._shared is None else SharedPlaces(self._call)
        return Latest(
            lambda requests: open_stream(requests, metadata=self._metadata),
            self._pin,
            camera=camera,
            deadline_ms=self._deadline_ms,
            places=places,
        )

    def close(self) -> None:
        """Close the connection."""
        if self._shared is not None:
            self._shared.close()
        self._channel.close()

    def __enter__(self) -> EncoderClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, name: str, /, *, until_s: float | None = None, **fields: Any) -> Any:
        call = CALLS[name]
        send = self._channel.unary_unary(path(name), call.encode_request, call.decode_response)
        until_s = time.monotonic() + self._pin.allowed_s(self._deadline_ms) if until_s is None else until_s
        return self._try(send, call.request(**fields), until_s=until_s)

    def _try(self, send: Any, message: Any, *, until_s: float) -> Any:
        """Call; while the server is away, again until the deadline."""
        wait_s = FIRST_WAIT_S
        while True:
            left_s = until_s - time.monotonic()
            try:
                return send(message, timeout=max(0.001, left_s), metadata=self._metadata)
            except grpc.RpcError as error:
                failure = from_grpc(error)
            if not isinstance(failure, UnavailableError) or until_s - time.monotonic() <= wait_s:
                raise failure
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
