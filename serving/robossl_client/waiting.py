"""Two ways to wait: blocking a thread, or awaiting on an event loop.

The clients are written once, as coroutines over a `Runtime`. Coroutines over `BlockingRuntime` never suspend, so `run`
returns their result without an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
NextRequest = Callable[[], Coroutine[Any, Any, Any]]  # returns None at the end of a stream


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends; return its result."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("a coroutine over BlockingRuntime suspended")


class StateCondition(Protocol):
    """A condition variable; hold it (`async with`) to change state or to wait."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def wait_for(self, is_true: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until `is_true` or the timeout; return whether it is true."""
        ...

    def notify_all(self) -> None:
        """Wake all waiters, which check again."""
        ...


class CallStream(Protocol):
    """A call with many requests and replies."""

    async def read(self) -> Any:
        """Return the next reply, or None at the end."""
        ...

    def cancel(self) -> None:
        """End the call now."""
        ...


class Runtime(Protocol):
    """A way to wait: `BlockingRuntime` or `AsyncioRuntime`."""

    is_async: bool

    def condition(self) -> StateCondition:
        """Return a new condition variable."""
        ...

    async def answer(self, call: Any) -> Any:
        """Start a call and return its answer."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for a time."""
        ...

    async def aside(self, work: Callable[[], T]) -> T:
        """Run blocking work and return its result."""
        ...

    def stream(self, method: Any, next_request: NextRequest, **options: Any) -> CallStream:
        """Open a stream by a method of a channel."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], Awaitable[None]]:
        """Start work in the background; return a function that waits for its end."""
        ...


class TimedLock:
    """A lock that can be awaited until a time of the monotonic clock."""

    def __init__(self, waiting: Runtime) -> None:
        self._changed = waiting.condition()
        self._is_held = False

    async def acquire(self, *, until_s: float | None = None) -> bool:
        """Return whether the lock was acquired in time."""
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


class BlockingRuntime:
    """Waits by blocking; background work runs in a thread."""

    is_async = False

    def condition(self) -> StateCondition:
        return _ThreadCondition()

    async def answer(self, call: Callable[[], Any]) -> Any:
        return call()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return work()

    def stream(self, method: Any, next_request: NextRequest, **options: Any) -> CallStream:
        return _ThreadStream(method, next_request, options)

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], Awaitable[None]]:
        thread = threading.Thread(target=run, args=(work,), name="robossl-latest", daemon=True)
        thread.start()

        async def join() -> None:
            thread.join()

        return join


class _ThreadCondition:
    def __init__(self) -> None:
        self._condition = threading.Condition()

    async def __aenter__(self) -> None:
        self._condition.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._condition.release()

    async def wait_for(self, is_true: Callable[[], bool], timeout_s: float | None = None) -> bool:
        return self._condition.wait_for(is_true, timeout_s)

    def notify_all(self) -> None:
        self._condition.notify_all()


class _ThreadStream:
    def __init__(self, method: Any, next_request: NextRequest, options: dict[str, Any]) -> None:
        def requests() -> Iterator[Any]:
            while (request := run(next_request())) is not None:
                yield request

        self._call = method(requests(), **options)

    async def read(self) -> Any:
        return next(self._call, None)

    def cancel(self) -> None:
        self._call.cancel()


class AsyncioRuntime:
    """Waits by awaiting; background work runs in a task."""

    is_async = True

    def condition(self) -> StateCondition:
        return _TaskCondition()

    async def answer(self, call: Callable[[], Any]) -> Any:
        return await call()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def stream(self, method: Any, next_request: NextRequest, **options: Any) -> CallStream:
        return _TaskStream(method, next_request, options)

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], Awaitable[None]]:
        task = asyncio.get_running_loop().create_task(work, name="robossl-latest")

        async def join() -> None:
            await asyncio.wait([task])

        return join


class _TaskCondition:
    """Needs no lock, because tasks of one loop switch only at an await."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass

    async def wait_for(self, is_true: Callable[[], bool], timeout_s: float | None = None) -> bool:
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        while not is_true():
            if until_s is not None and loop.time() >= until_s:
                return False
            waiter = loop.create_future()
            timer = None if until_s is None else loop.call_at(until_s, _wake, waiter)
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if timer is not None:
                    timer.cancel()
        return True

    def notify_all(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)


class _TaskStream:
    def __init__(self, method: Any, next_request: NextRequest, options: dict[str, Any]) -> None:
        async def requests() -> AsyncIterator[Any]:
            while (request := await next_request()) is not None:
                yield request

        self._call = method(requests(), **options)
        self._replies = self._call.__aiter__()
        self._is_cancelled = False

    async def read(self) -> Any:
        try:
            return await self._replies.__anext__()
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError:
            if self._is_cancelled:
                return None
            raise

    def cancel(self) -> None:
        self._is_cancelled = True
        self._call.cancel()


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
