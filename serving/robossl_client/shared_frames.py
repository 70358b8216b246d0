"""Send frames through shared memory.

The calls of a client share one region of memory. A stream has its own region, with places for several frames.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from robossl_client.errors import DeadlineError, OverloadedError, RequestError, ServingError
from robossl_client.frames import Frames, raw_view
from robossl_client.shared import SharedFile
from robossl_client.waiting import Runtime, TimedLock

# Time limit for unregistering a region; short, because an unavailable server will notice the removed file by itself.
_GOODBYE_S = 0.1
CallByName = Callable[..., Awaitable[Any]]  # makes a call; arguments: name of the call, fields of its request
# Sends a request. The argument holds the request's parameters that say where the frames are.
SendRequest = Callable[[Mapping[str, Any]], Awaitable[Any]]


class _Registered:
    """A region of shared memory that is registered with the server.

    Callers call `renew` to replace a region that is too small, or that the server has forgotten.
    """

    def __init__(self, call: CallByName) -> None:
        self._call = call
        self.region: SharedFile | None = None

    async def renew(self, size: int, *, until_s: float | None = None) -> None:
        """Create a region of `size` bytes in place of the old region, and register it with the server.

        Raises:
            OverloadedError: /dev/shm is full, or the server takes no more regions.
            ServingError: the server takes no shared memory, or is unavailable.
        """
        await self.close()
        try:
            region = SharedFile(size)
        except OSError as error:
            raise OverloadedError(f"no room for {size} bytes in shared memory ({error.strerror})") from error
        said = {"name": region.name, "key": region.key, "byte_size": size}
        try:
            await self._call("SystemSharedMemoryRegister", until_s=until_s, **said)
        except ServingError:
            region.close()
            raise
        self.region = region

    async def is_gone(self) -> bool:
        """Return whether the file was removed, or the server has forgotten the region."""
        if self.region is None or self.region.is_removed:
            return True
        try:
            status = await self._call("SystemSharedMemoryStatus", name=self.region.name)
        except ServingError:
            return False
        return self.region.name not in status.regions

    async def close(self) -> None:
        if self.region is not None:
            with contextlib.suppress(ServingError):
                until_s = time.monotonic() + _GOODBYE_S
                await self._call("SystemSharedMemoryUnregister", until_s=until_s, name=self.region.name)
            self.region.close()
            self.region = None


class SharedFrames:
    """Sends the frames of one call at a time through shared memory."""

    def __init__(self, call: CallByName, waiting: Runtime) -> None:
        self._registered = _Registered(call)
        self._lock = TimedLock(waiting)

    async def send(self, frames: Frames, send: SendRequest, *, until_s: float) -> Any:
        """Write the frames to shared memory and call `send`, all before `until_s` (of time.monotonic()).

        Raises:
            DeadlineError: another call still uses the region at that time.
            ServingError: the region cannot be created or registered, or the call itself failed.
        """
        if not await self._lock.acquire(until_s=until_s):
            raise DeadlineError("another call of this client still used its shared memory at the deadline")
        try:
            return await self._send(raw_view(frames), send, until_s=until_s)
        finally:
            await self._lock.release()

    async def _send(self, raw: bytes | memoryview, send: SendRequest, *, until_s: float) -> Any:
        region = self._registered.region
        if region is None or region.size < len(raw):
            await self._registered.renew(len(raw), until_s=until_s)
        for is_last in (False, True):
            assert self._registered.region is not None
            self._registered.region.write(raw)
            try:
                return await send(_where(self._registered.region, 0, len(raw)))
            except RequestError:
                if is_last:
                    raise
                # The server may have restarted. Then it knows no regions, so register a new region.
                await self._registered.renew(len(raw), until_s=until_s)

    async def close(self) -> None:
        """Remove the region."""
        await self._registered.close()


class SharedPlaces:
    """A region with places for several frames of a stream; a place is reused only after the reply to its frame."""

    def __init__(self, call: CallByName, waiting: Runtime, *, num_places: int = 4) -> None:
        self._registered = _Registered(call)
        self._num_places = num_places
        self._lock = TimedLock(waiting)
        self._place_bytes = 0
        self._is_closed = False
        self._is_full = False  # whether shared memory has no room for a region; frames are then sent as bytes
        self._taken: dict[str, int] = {}  # place of each frame, by frame id
        self._lost: set[str] = set()  # ids of frames whose region is lost

    async def put(self, frame_id: str, frames: Frames) -> Mapping[str, Any] | None:
        """Write the frames to a free place, and return parameters that say where they are.

        Return None if the frames cannot be placed, for example because no place is free. Then send them as bytes.

        Raises:
            ServingError: the server takes no shared memory, or is unavailable.
        """
        raw = raw_view(frames)
        async with self._lock:
            if self._is_closed or self._is_full:
                return None
            if self._registered.region is None or self._place_bytes < len(raw):
                if self._taken:
                    return None
                try:
                    await self._registered.renew(self._num_places * len(raw))
                except OverloadedError:
                    self._is_full = True
                    return None
                self._place_bytes = len(raw)
            free = set(range(self._num_places)) - set(self._taken.values())
            if not free:
                return None
            self._taken[frame_id] = place = min(free)
            region = self._registered.region
            assert region is not None
            region.write(raw, at=place * self._place_bytes)
            return _where(region, place * self._place_bytes, len(raw))

    async def free(self, frame_id: str) -> None:
        """Free the place of a frame that was answered."""
        async with self._lock:
            self._taken.pop(frame_id, None)

    async def is_lost(self, frame_id: str) -> bool:
        """Return whether the region of a frame is lost. If so, close it; the next frame creates a new region."""
        async with self._lock:
            if frame_id in self._taken and await self._registered.is_gone():
                self._lost = set(self._taken)
                self._taken.clear()
                await self._registered.close()
            return frame_id in self._lost

    async def close(self, *, for_good: bool = False) -> None:
        """Remove the region. Unless `for_good`, the next frame creates a new region."""
        async with self._lock:
            self._is_closed |= for_good
            self._is_full = False
            self._taken.clear()
            await self._registered.close()


def _where(region: SharedFile, offset: int, size: int) -> dict[str, Any]:
    where = {"shared_memory_region": region.name, "shared_memory_byte_size": size}
    return where | {"shared_memory_offset": offset} if offset else where
