"""Two ways to wait: blocking a thread, or awaiting on an event loop.

The code of the clients is written once, as coroutines that wait only by the methods of a `Runtime`. With a
`BlockingRuntime`, the coroutines block instead of suspending, so `run` returns their result without an event loop.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
NextRequest = Callable[[], Coroutine[Any, Any, Any]]  # returns the next request of a stream; None at the end


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a coroutine over BlockingRuntime suspended")


class StateCondition(Protocol):
    """A condition variable; hold it (`async with`) while you change the state or wait for a change."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def wait_for(self, is_true: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `is_true()` returns True or the timeout has passed; return the last result of `is_true`."""
        ...

    def notify_all(self) -> None:
        """Wake all callers of `wait_for`, so that they check `is_true` again."""
        ...


class CallStream(Protocol):
    """A call with many requests and replies."""

    async def read(self) -> Any:
        """Return the next reply, or None if the call has ended."""
        ...

    def cancel(self) -> None:
        """End the call now."""
        ...


class Runtime(Protocol):
    """How a client waits: `BlockingRuntime` blocks a thread, `AsyncioRuntime` awaits on an event loop."""

    is_async: bool

    def condition(self) -> StateCondition:
        """Return a new condition variable."""
        ...

    async def answer(self, call: Any) -> Any:
        """Start a call, wait for its answer and return it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for a number of seconds."""
        ...

    async def aside(self, work: Callable[[], T]) -> T:
        """Run a function that blocks, without blocking an event loop; return its result."""
        ...

    def stream(self, method: Any, next_request: NextRequest, **options: Any) -> CallStream:
        """Open a stream by a method of a grpc channel. The stream sends the requests that `next_request` returns."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], Awaitable[None]]:
        """Start work in the background; return a function that waits for its end."""
        ...


class TimedLock:
    """A lock for which a caller waits at most until a given time (of time.monotonic())."""

    def __init__(self, waiting: Runtime) -> None:
        self._changed = waiting.condition()
        self._is_held = False

    async def acquire(self, *, until_s: float | None = None) -> bool:
        """Wait for the lock until `until_s`; return whether it was acquired in time."""
        left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
        async with self._changed:
            is_free = await self._changed.wait_for(lambda: not self._is_held, left_s)
            self._is_held |= is_free
            return is_free

    async def release(self) -> None:
        """Release the lock."""
        async with self._changed:
            self._is_held = False
            self._changed.notify_all()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        await self.release()
