"""Split the samples of a batch into chunks, and augment the chunks in threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from robossl.colour import hue_place

_CHUNK_PIXELS = 2**18  # of views: few calls, but the chunk stays in a core's cache


def chunks(order: NDArray[np.int64], *, size: int, device: torch.device) -> list[NDArray[np.int64]]:
    """Split samples into chunks; samples with the same place of the hue shift are next to each other.

    Args:
        order: (n, 4), the order of each sample's colour operations, as `jitter_` takes it.
        size: Side of the views, pixels.
        device: An accelerator gets one chunk, a CPU several for its threads and caches.

    Returns:
        Sample numbers of each chunk; every sample is in one chunk.
    """
    place = hue_place(order)
    by_place = np.argsort(place, kind="stable")
    if device.type != "cpu":
        return [by_place]
    num_threads = torch.get_num_threads()
    num_chunks = num_threads * -(-len(order) * size**2 // (_CHUNK_PIXELS * num_threads))
    cost = np.cumsum(1 + (place[by_place] < 5))  # the colour operations cost about as much as all others
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], num_chunks + 1)[1:-1])
    return [chunk for chunk in np.split(by_place, edges) if len(chunk)]


def for_each(work: Callable[[NDArray[np.int64]], None], pieces: list[NDArray[np.int64]]) -> None:
    """Call `work` on each piece, with as many pieces at a time as torch has threads."""
    num_threads = torch.get_num_threads()
    if len(pieces) == 1 or num_threads == 1:
        for piece in pieces:
            work(piece)
    else:
        list(_pool(num_threads, os.getpid()).map(work, pieces))


@cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that run each torch operation on one thread; a forked process makes its own."""
    started = threading.Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # applies the setting now; the thread's first operation would read it again
        started.wait()

    pool = ThreadPoolExecutor(num_threads, "augment", initializer=start)
    for begun in [pool.submit(int) for _ in range(num_threads)]:
        begun.result()
    # The calls in the threads also changed the default of threads started later.
    torch.set_num_threads(num_threads)
    return pool
