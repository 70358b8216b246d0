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

from robossl.colour import hue_place

_CHUNK_PIXELS = 2**18  # pixels of views worked on together: few calls, and yet in a core's cache


def chunks(order: NDArray[np.int64], *, size: int, device: torch.device) -> list[NDArray[np.int64]]:
    """Split samples for work, those whose colour operations go together side by side.

    Args:
        order: (n, 4), the order of each sample's colour operations, as `jitter_` takes it.
        size: Side of the views, pixels.
        device: An accelerator takes all samples at once, a CPU pieces for its threads and caches.

    Returns:
        Sample numbers of each chunk; every sample is in one of them.
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
        torch.get_num_threads()  # takes the setting up now; at the thread's first operation it would be read anew
        started.wait()

    pool = ThreadPoolExecutor(num_threads, "augment", initializer=start)
    for begun in [pool.submit(int) for _ in range(num_threads)]:
        begun.result()
    torch.set_num_threads(num_threads)  # the same call in the threads also set what threads begun later get
    return pool
