"""Which samples are augmented together, and by which thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

_CHUNK_PIXELS = 2**17  # pixels of views worked on together: few calls, and yet in a core's cache


def chunks(order: NDArray[np.int64], *, size: int, device: torch.device) -> list[NDArray[np.int64]]:
    """Split samples for work, those with the same order of colour operations side by side.

    Args:
        order: (n, 4), the order of each sample's colour operations, -1: none.
        size: Side of the views, pixels.
        device: An accelerator takes all samples at once, a CPU pieces for its threads and caches.

    Returns:
        Sample numbers of each chunk; every sample is in one of them.
    """
    by_order = np.lexsort(order.T[::-1])
    if device.type != "cpu":
        return [by_order]
    num_threads = torch.get_num_threads()
    num_chunks = num_threads * -(-len(order) * size**2 // (_CHUNK_PIXELS * num_threads))
    cost = np.cumsum(1 + (order[by_order, 0] >= 0))  # the colour operations cost about as much as all others
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], num_chunks + 1)[1:-1])
    return [chunk for chunk in np.split(by_order, edges) if len(chunk)]


def for_each(work: Callable[[NDArray[np.int64]], None], pieces: list[NDArray[np.int64]]) -> None:
    """Call `work` on each piece, on a CPU as many at a time as torch has threads."""
    num_threads = torch.get_num_threads()
    if len(pieces) == 1 or num_threads == 1:
        for piece in pieces:
            work(piece)
    else:
        list(_pool(num_threads, os.getpid()).map(work, pieces))


@cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that run every torch operation on themselves alone; a forked process makes its own."""
    started = threading.Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(num_threads, "augment", initializer=start)
    for _ in range(num_threads):
        pool.submit(started.wait)
    pool.submit(int).result()
    # the call in the threads also set what threads started later would get
    torch.set_num_threads(num_threads)
    return pool
