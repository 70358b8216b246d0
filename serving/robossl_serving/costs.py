"""Costs: the run time of an encoder by number and size of frames, measured when the encoder is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise

import numpy as np

# A batch is worth running if each of its frames takes at most `_PAYS` times as long as a frame that runs alone.
# The batch may take at most `_LONGER` times as long as one frame, because waiting frames age meanwhile.
_PAYS = 0.8
_LONGER = 2.0
_SIZES = (1, 2, 4, 8, 16)
LARGER = 4  # height and width of the larger frame that is measured, as multiples of the encoder's input size


@dataclass(frozen=True)
class Costs:
    """Run times of an encoder. `seconds` gives the time of a run by its number of frames, and must have the key 1."""

    seconds: Mapping[int, float]
    pixels: int = 0  # height x width of the frames in the measured runs
    per_pixel_s: float = 0.0  # additional time per additional pixel of a frame; 0 if the size does not matter

    def of(self, num_frames: int, hw: tuple[int, int] | None = None) -> float:
        """Return the seconds that a run takes, interpolated or extrapolated linearly from the measured runs.

        Args:
            num_frames: Number of frames.
            hw: Height and width of the frames; None for the measured size.

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
        """Size of the largest batch that is worth running (see `_PAYS`).

        It is 1 if running more frames together is not worth it, as on most CPUs.

        >>> Costs({1: 0.034, 2: 0.067, 4: 0.14}).best_batch, Costs({1: 0.002, 8: 0.004, 16: 0.03}).best_batch
        (1, 8)
        >>> Costs({1: 0.006, 2: 0.009, 4: 0.016, 8: 0.03}).best_batch  # slightly cheaper, much later
        2
        """
        return self.best_batch_of(None)

    def best_batch_of(self, hw: tuple[int, int] | None) -> int:
        """Return how many frames of size `hw` are worth running as one batch; large frames allow only small batches.

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
    """Measure the run times of growing batches, until they are no longer worth running or `budget_s` is spent.

    Each batch size runs three times, and the fastest run counts. If a batch was slower than a larger batch, another
    program disturbed the measurement. The smaller batch then gets the time of the larger batch, because a wrong time
    for one frame would spoil all planning.
    """
    seconds: dict[int, float] = {}
    started_s = time.monotonic()
    run(1)  # not timed, because the first run allocates memory
    for size in (size for size in _SIZES if size <= max_batch):
        seconds[size] = min(_timed(partial(run, size)) for _ in range(3))
        spent_s = time.monotonic() - started_s
        if (size >= 4 and seconds[size] / size > _PAYS * seconds[1]) or spent_s > budget_s:
            break
    for smaller, larger in reversed(list(pairwise(seconds))):
        seconds[smaller] = min(seconds[smaller], seconds[larger])
    return Costs(seconds)


def measure_pixels(costs: Costs, run_larger: Callable[[], object], hw: tuple[int, int]) -> Costs:
    """Measure the additional time per additional pixel, and return the costs with this time filled in.

    `hw` is the frame size of the earlier measurements. `run_larger` runs one frame that is `LARGER` times as high and
    as wide. It is timed twice, and the faster run counts.
    """
    run_larger()  # not timed, because the first run allocates memory
    larger_s = min(_timed(run_larger) for _ in range(2))
    pixels = hw[0] * hw[1]
    per_pixel_s = (larger_s - costs.of(1)) / ((LARGER**2 - 1) * pixels)
    # The cost of a pixel is limited, because otherwise the extrapolated cost of tiny frames could be negative.
    return replace(costs, pixels=pixels, per_pixel_s=min(max(0.0, per_pixel_s), costs.of(1) / pixels))


def _timed(run: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    run()
    return time.perf_counter() - started_s
