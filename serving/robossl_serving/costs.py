"""Costs: how long the encoder takes for a number of frames, measured when it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

_PAYS = 0.8  # a batch is worth its wait if a frame in it costs at most this part of a frame alone
_LONGER = 2.0  # ... and if it takes at most so many runs alone: robots' frames age meanwhile
_SIZES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Costs:
    """Seconds of a run by its number of frames; one frame must be among them."""

    seconds: Mapping[int, float]

    def of(self, num_frames: int) -> float:
        """Seconds for a number of frames, between and beyond the measured ones on straight lines.

        >>> Costs({1: 0.01, 4: 0.025}).of(2), Costs({1: 0.01, 4: 0.025}).of(8)
        (0.015, 0.05)
        """
        if num_frames in self.seconds:
            return self.seconds[num_frames]
        sizes = sorted(self.seconds)
        if num_frames >= sizes[-1]:
            return self.seconds[sizes[-1]] * num_frames / sizes[-1]
        return float(np.interp(num_frames, sizes, [self.seconds[size] for size in sizes]))

    @cached_property
    def best_batch(self) -> int:
        """The largest number of frames that is worth running together; 1 where batching does not pay (most CPUs).

        >>> Costs({1: 0.034, 2: 0.067, 4: 0.14}).best_batch, Costs({1: 0.002, 8: 0.004, 16: 0.03}).best_batch
        (1, 8)
        >>> Costs({1: 0.006, 2: 0.009, 4: 0.016, 8: 0.03}).best_batch  # a little cheaper a frame, much later
        2
        """
        longest = _LONGER * self.seconds[1]
        pays = _PAYS * self.seconds[1]
        return max(
            size
            for size, seconds in self.seconds.items()
            if size == 1 or (seconds <= longest and seconds / size <= pays)
        )


def measure_costs(run: Callable[[int], object], *, max_batch: int, budget_s: float = 3.0) -> Costs:
    """Time runs of growing size, the fastest of three each; stops where batching has stopped paying.

    Fewer frames never take longer: a size that was timed beside another program's work takes a larger one's time, or
    all that is planned for one frame alone would follow from that moment.
    """
    seconds: dict[int, float] = {}
    started_s = time.monotonic()
    run(1)  # the first run plans memory
    for size in (size for size in _SIZES if size <= max_batch):
        seconds[size] = min(_timed(run, size) for _ in range(3))
        spent_s = time.monotonic() - started_s
        if (size >= 4 and seconds[size] / size > _PAYS * seconds[1]) or spent_s > budget_s:
            break
    for smaller, larger in reversed(list(pairwise(seconds))):
        seconds[smaller] = min(seconds[smaller], seconds[larger])
    return Costs(seconds)


def _timed(run: Callable[[int], object], size: int) -> float:
    started_s = time.perf_counter()
    run(size)
    return time.perf_counter() - started_s
