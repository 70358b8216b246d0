"""BlockingRuntime: lets a client wait by blocking the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from robossl_client.waiting import CallStream, NextRequest, StateCondition, run

T = TypeVar("T")


class BlockingRuntime:
    """Waits by blocking the calling thread; background work runs in another thread."""

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
