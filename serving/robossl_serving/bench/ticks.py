"""Ticks: the times at which a client sends frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

from jaxtyping import Float
from numpy import ndarray

from robossl_serving.bench.trace import Trace


class Ticks:
    """Yields the frame times of one client. Like a robot, the client skips a frame if the next frame is already due."""

    def __init__(self, begin_s: float, due_s: Float[ndarray, " n"] | None, trace: Trace) -> None:
        self._begin_s = begin_s
        # Times when frames are due. None for a closed loop, in which each frame follows the previous reply.
        self._due_s = due_s
        self._trace = trace

    @property
    def is_closed_loop(self) -> bool:
        """Whether the client sends each frame after the previous reply."""
        return self._due_s is None

    def wait_by(self, wait: Callable[[float], None]) -> Iterator[float]:
        """Yield each capture time when it is reached; `wait(until_s)` must wait until the time `until_s`."""
        wait(self._begin_s)
        until_s = self._trace.until_s
        if self._due_s is None:
            while (now_s := time.monotonic()) < until_s:
                yield now_s
            return
        for this_s, next_s in pairwise([*self._due_s[self._due_s < until_s].tolist(), until_s]):
            if next_s <= time.monotonic():
                self._trace.skipped(this_s)
            else:
                wait(this_s)
                yield this_s
