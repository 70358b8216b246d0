"""Budget: the memory that requests of the whole server may hold, asked for before it is used.

Two pools, so that requests whose messages are here can always be decoded: one of the messages as they came, one of
decoded pixels. A robot's frame is taken or refused at once. Batch requests wait for pixels and for a decoder, first
come, first served, and leave a part of both pools to robots.
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

_BATCH_PART = 0.75  # of each pool
_LOOK_S = 0.25  # how often a request that waits looks whether its caller is still there
_LARGE_BYTES = 8 * MIB  # of one request; the memory of smaller ones is kept for the next frames
_TRIM_BYTES, _TRIM_NOW_BYTES = 16 * MIB, 256 * MIB  # freed by large requests


@dataclass(eq=False, slots=True)
class MemoryClaim:
    """What one request may hold."""

    is_control: bool
    deadline_s: float
    is_gone: Callable[[], bool] = field(repr=False)  # whether its caller has left
    message_bytes: int = 0
    pixel_bytes: int = 0
    is_counted: bool = False  # among the batch requests that are held
    is_decoding: bool = False

    @property
    def priority(self) -> Priority:
        """Of its request."""
        return "control" if self.is_control else "batch"

    def check(self) -> None:
        """Go on only while somebody waits for the result.

        Raises:
            RefusedError: the caller has left, or the deadline has passed.
        """
        if self.is_gone():
            raise RefusedError(grpc.StatusCode.CANCELLED, "cancelled before it was run")
        if time.monotonic() >= self.deadline_s:
            raise late_error()


class MemoryBudget:
    """Memory and decoders of one server."""

    def __init__(self, limits: Limits, *, num_decoders: int = 1) -> None:
        """Let requests hold what the limits allow; `num_decoders` batch requests are decoded at the same time."""
        self._limits = limits
        self._num_decoders = num_decoders
        self._lock = threading.Lock()
        self._queue: deque[threading.Condition] = deque()  # one for each batch request that waits, the next one first
        self._num_decoding = 0
        self._num_batch = 0  # held, of all encoders; each holds a thread too
        self._freed = 0  # by large requests, since memory was last given back to the system
        # A request is counted as freed a moment before its memory is: the regular call after a trim trims once more.
        self._trims_again = False
        self.message_bytes = 0
        self.pixel_bytes = 0

    def take_message(self, claim: MemoryClaim, num_bytes: int) -> None:
        """Count a message.

        Raises:
            RefusedError: the server holds as many as it may.
        """
        with self._lock:
            allowed = self._limits.held_message_bytes * (1.0 if claim.is_control else _BATCH_PART)
            if self.message_bytes and self.message_bytes + num_bytes > allowed:
                raise _full("message bytes", self._limits.held_message_bytes)
            if not claim.is_control:
                if self._num_batch > 2 * self._limits.waiting + self._num_decoders:  # to be decoded, to be run
                    raise _too_many()
                self._num_batch += 1
                claim.is_counted = True
            self.message_bytes += num_bytes
            claim.message_bytes += num_bytes

    def take_pixels(self, claim: MemoryClaim, num_bytes: int) -> None:
        """Count what decoding will hold, and for a batch request wait until there is room and a decoder is free.

        Raises:
            RefusedError: there is no room, or the caller left or its deadline passed while it waited.
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
        """Give back the decoder, and what it took beside the pixels."""
        with self._lock:
            self._end_decoding(claim)
            self._free_pixels(claim, working_bytes)
            self._wake_next()
        self.give_back(at_least=_TRIM_NOW_BYTES)

    def release(self, claim: MemoryClaim) -> None:
        """Give back all that a request holds; once more does nothing."""
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
        """Give freed memory back to the system, if large requests freed much; to be called now and then.

        Args:
            at_least: How much; for a call between the regular ones, which then costs nothing if less was freed.
        """
        with self._lock:
            is_due = self._freed >= (_TRIM_BYTES if at_least is None else at_least)
            if not is_due and (at_least is not None or not self._trims_again):
                return
            self._trims_again = is_due
            self._freed = 0
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps it otherwise
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
    """The deadline has passed, or cannot be met."""
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
