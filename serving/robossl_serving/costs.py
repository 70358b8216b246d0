"""Costs: how long the encoder takes for a number of frames of a size, measured when it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise

import numpy as np

_PAYS = 0.8  # a batch is worth its wait if a frame in it costs at most this part of a frame alone
_LONGER = 2.0  # ... and if it takes at most so many runs alone: robots' frames age meanwhile
_SIZES = (1, 2, 4, 8, 16)
LARGER = 4  # times the height and width: what a camera sends is about so much larger than what an encoder looks at


@dataclass(frozen=True)
class Costs:
    """Seconds of a run by its number of frames, of one size; one frame must be among them."""

    seconds: Mapping[int, float]
    pixels: int = 0  # of a measured frame
    per_pixel_s: float = 0.0  # for each pixel that a frame has more or less; 0: all sizes cost the same

    def of(self, num_frames: int, hw: tuple[int, int] | None = None) -> float:
        """Seconds for a number of frames, between and beyond the measured ones on straight lines.

        Args:
            num_frames: How many.
            hw: Their height and width; None: those that were measured.

        >>> Costs({1: 0.01, 4: 0.025}).of(2), Costs({1: 0.01, 4: 0.025}).of(8)
        (0.015, 0.05)
        >>> Costs({1: 0.01}, pixels=50_000, per_pixel_s=1e-8).of(2, (3000, 4000))
        0.259
        """
        seconds = self._of_measured_size(num_frames)
        if hw is None or not self.per_pixel_s:
            return seconds
        pixels = hw[0] * hw[1]
        more_s = num_frames * self.per_pixel_s * (pixels - self.pixels)
        return max(seconds + more_s, seconds * min(1.0, pixels / self.pixels))

    @cached_property
    def best_batch(self) -> int:
        """The largest number of frames that is worth running together; 1 where batching does not pay (most CPUs).

        >>> Costs({1: 0.034, 2: 0.067, 4: 0.14}).best_batch, Costs({1: 0.002, 8: 0.004, 16: 0.03}).best_batch
        (1, 8)
        >>> Costs({1: 0.006, 2: 0.009, 4: 0.016, 8: 0.03}).best_batch  # a little cheaper a frame, much later
        2
        """
        return self.best_batch_of(None)

    def best_batch_of(self, hw: tuple[int, int] | None) -> int:
        """The same for frames of another size: batching pays less for large ones.

        >>> costs = Costs({1: 0.002, 8: 0.004}, pixels=50_000, per_pixel_s=1e-8)
        >>> costs.best_batch_of((200, 250)), costs.best_batch_of((3000, 4000))
        (8, 1)
        """
        alone_s = self.of(1, hw)
        costs = {size: self.of(size, hw) for size in self.seconds}
        return max(
            size
            for size, seconds in costs.items()
            if size == 1 or (seconds <= _LONGER * alone_s and seconds / size <= _PAYS * alone_s)
        )

    def _of_measured_size(self, num_frames: int) -> float:
        if num_frames in self.seconds:
            return self.seconds[num_frames]
        sizes = sorted(self.seconds)
        if num_frames >= sizes[-1]:
            return self.seconds[sizes[-1]] * num_frames / sizes[-1]
        return float(np.interp(num_frames, sizes, [self.seconds[size] for size in sizes]))


def measure_costs(run: Callable[[int], object], *, max_batch: int, budget_s: float = 3.0) -> Costs:
    """Time runs of growing size, the fastest of three each; stops where batching has stopped paying.

    Fewer frames never take longer: a size that was timed beside another program's work takes a larger one's time, or
    all that is planned for one frame alone would follow from that moment.
    """
    seconds: dict[int, float] = {}
    started_s = time.monotonic()
    run(1)  # the first run plans memory
    for size in (size for size in _SIZES if size <= max_batch):
        seconds[size] = min(_timed(partial(run, size)) for _ in range(3))
        spent_s = time.monotonic() - started_s
        if (size >= 4 and seconds[size] / size > _PAYS * seconds[1]) or spent_s > budget_s:
            break
    for smaller, larger in reversed(list(pairwise(seconds))):
        seconds[smaller] = min(seconds[smaller], seconds[larger])
    return Costs(seconds)


def measure_pixels(costs: Costs, run_larger: Callable[[], object], hw: tuple[int, int]) -> Costs:
    """Add what a pixel costs: time one frame of `LARGER` times the height and width `hw`, the faster of two runs."""
    run_larger()  # the first run plans memory
    larger_s = min(_timed(run_larger) for _ in range(2))
    pixels = hw[0] * hw[1]
    per_pixel_s = (larger_s - costs.of(1)) / ((LARGER**2 - 1) * pixels)
    # at most in proportion to the pixels: a frame of none would cost less than nothing
    return replace(costs, pixels=pixels, per_pixel_s=min(max(0.0, per_pixel_s), costs.of(1) / pixels))


def _timed(run: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s
