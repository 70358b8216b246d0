"""Memory budget of all requests in the server; memory is claimed before it is used.

There are two pools of memory, for messages and for decoded pixels, so that a request whose message was accepted can
always be decoded. Control requests (from robots) are accepted or refused at once. Batch requests wait for pixel memory
and for a decoder, first come, first served. They may not use the whole pools, so that control requests find room.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from robossl_serving.limits import MIB, Limits
from robossl_serving.refused import RefusedError
from robossl_serving.requests import Priority

_BATCH_PART = 0.75  # share of each pool that batch requests may use
_LOOK_S = 0.25  # seconds between checks whether the client of a waiting request has left
# Requests of at least this size are large. The server keeps the memory of smaller requests for new frames.
_LARGE_BYTES = 8 * MIB
# If large requests have freed `_TRIM_BYTES`, memory goes back to the system at the next regular check.
# If they have freed `_TRIM_NOW_BYTES`, memory goes back at once.
_TRIM_BYTES, _TRIM_NOW_BYTES = 16 * MIB, 256 * MIB


@dataclass(eq=False, slots=True)
class MemoryClaim:
    """The memory that one request holds."""

    is_control: bool
    deadline_s: float
    is_gone: Callable[[], bool] = field(repr=False)  # returns whether the client of the request has left
    message_bytes: int = 0
    pixel_bytes: int = 0
    is_counted: bool = False  # whether the budget counts this request as a batch request now
    is_decoding: bool = False

    @property
    def priority(self) -> Priority:
        """Priority of the request that holds the memory."""
        return "control" if self.is_control else "batch"

    def check(self) -> None:
        """Check that the client still waits for the result.

        Raises:
            RefusedError: the client has left, or the deadline has passed.
        """
        if self.is_gone():
            raise RefusedError(grpc.StatusCode.CANCELLED, "cancelled before it was run")
        if time.monotonic() >= self.deadline_s:
            raise late_error()


class MemoryBudget:
    """Limits the memory and the decoders that requests use in one server."""

    def __init__(self, limits: Limits, *, num_decoders: int = 1) -> None:
        """Use the memory limits in `limits`, and let `num_decoders` batch requests decode at the same time."""
        self._limits = limits
        self._num_decoders = num_decoders
        self._lock = threading.Lock()
        self._queue: deque[threading.Condition] = deque()  # a condition per waiting batch request, oldest first
        self._num_decoding = 0
        self._num_batch = 0  # number of batch requests of all encoders; each of them also holds a thread
        self._freed = 0  # bytes freed by large requests since the last trim
        # A trim can miss memory that was counted as freed but is freed a moment later, so the next call trims again.
        self._trims_again = False
        self.message_bytes = 0
        self.pixel_bytes = 0

    def take_message(self, claim: MemoryClaim, num_bytes: int) -> None:
        """Claim the memory of a message.

        Raises:
            RefusedError: the server holds too many bytes of messages, or too many batch requests.
        """
        with self._lock:
            allowed = self._limits.held_message_bytes * (1.0 if claim.is_control else _BATCH_PART)
            if self.message_bytes and self.message_bytes + num_bytes > allowed:
                raise _full("message bytes", self._limits.held_message_bytes)
            if not claim.is_control:
                # The limit has room for batch requests that wait for a decoder, are being decoded, or wait for a run.
                if self._num_batch > 2 * self._limits.waiting + self._num_decoders:
                    raise _too_many()
                self._num_batch += 1
                claim.is_counted = True
            self.message_bytes += num_bytes
            claim.message_bytes += num_bytes

    def take_pixels(self, claim: MemoryClaim, num_bytes: int) -> None:
        """Claim the memory for decoding; a batch request waits until memory and a decoder are free.

        Raises:
            RefusedError: memory is full or too many batch requests wait; or, during the wait, the client left or the
                deadline passed.
        """
        with self._lock:
            if claim.is_control:
                if self.pixel_bytes and self.pixel_bytes + num_bytes > self._limits.held_pixel_bytes:
                    raise _full("bytes of pixels", self._limits.held_pixel_bytes)
            else:
                self._wait(claim, num_bytes)
                self._num_decoding += 1
                claim.is_decoding = True
            self.pixel_bytes += num_bytes
            claim.pixel_bytes += num_bytes

    def decoded(self, claim: MemoryClaim, *, working_bytes: int) -> None:
        """Release the decoder of a request, and the working memory that decoding needed."""
        with self._lock:
            self._end_decoding(claim)
            self._free_pixels(claim, working_bytes)
            self._wake_next()
        self.give_back(at_least=_TRIM_NOW_BYTES)

    def release(self, claim: MemoryClaim) -> None:
        """Release all memory of a request; a second call does nothing."""
        with self._lock:
            self._end_decoding(claim)
            self._num_batch -= claim.is_counted
            claim.is_counted = False
            self.message_bytes -= claim.message_bytes
            self._count_freed(claim.message_bytes)
            claim.message_bytes = 0
            self._free_pixels(claim, claim.pixel_bytes)
            self._wake_next()

    def give_back(self, *, at_least: int | None = None) -> None:
        """Return freed memory to the system if large requests freed much; call this regularly.

        Args:
            at_least: Return memory only if at least this many bytes were freed. None in the regular calls, which use
                `_TRIM_BYTES`.
        """
        with self._lock:
            is_due = self._freed >= (_TRIM_BYTES if at_least is None else at_least)
            if not is_due and (at_least is not None or not self._trims_again):
                return
            self._trims_again = is_due
            self._freed = 0
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # without a trim, glibc keeps the freed memory
        if trim is not None:
            trim(0)

    def _free_pixels(self, claim: MemoryClaim, num_bytes: int) -> None:
        self.pixel_bytes -= num_bytes
        claim.pixel_bytes -= num_bytes
        self._count_freed(num_bytes)

    def _count_freed(self, num_bytes: int) -> None:
        if num_bytes >= _LARGE_BYTES:
            self._freed += num_bytes

    def _wait(self, claim: MemoryClaim, num_bytes: int) -> None:
        if len(self._queue) >= self._limits.waiting:
            raise _too_many()
        turn = threading.Condition(self._lock)
        self._queue.append(turn)
        try:
            while not (self._queue[0] is turn and self._fits(num_bytes)):
                claim.check()
                turn.wait(_LOOK_S)
        finally:
            self._queue.remove(turn)
            self._wake_next()

    def _wake_next(self) -> None:
        if self._queue:
            self._queue[0].notify()

    def _fits(self, num_bytes: int) -> bool:
        allowed = _BATCH_PART * self._limits.held_pixel_bytes
        has_room = not self.pixel_bytes or self.pixel_bytes + num_bytes <= allowed
        return has_room and self._num_decoding < self._num_decoders

    def _end_decoding(self, claim: MemoryClaim) -> None:
        if claim.is_decoding:
            self._num_decoding -= 1
            claim.is_decoding = False


def late_error() -> RefusedError:
    """Return the error for a deadline that has passed or cannot be met."""
    return RefusedError(
        grpc.StatusCode.DEADLINE_EXCEEDED, "it could not have been ready by its deadline, and was not run"
    )


def _too_many() -> RefusedError:
    return RefusedError(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many batch requests wait; send fewer, or later")


def _full(what: str, allowed: int) -> RefusedError:
    return RefusedError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"the requests that the server holds have nearly {allowed} {what}, the most it allows; send less, or later",
    )
