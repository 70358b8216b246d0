"""AsyncioRuntime: lets a client wait on an event loop without blocking it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from robossl_client.waiting import CallStream, NextRequest, StateCondition

T = TypeVar("T")


class AsyncioRuntime:
    """Waits with `await`, so that other tasks go on; background work runs in a task."""

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
    """A condition variable for tasks; it needs no lock, because tasks of one event loop switch only at an `await`."""

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
