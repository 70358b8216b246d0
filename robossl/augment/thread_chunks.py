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

from robossl.augment.colour import hue_place

# Pixels per chunk: enough that there are few calls, but few enough that its views stay in the cache of a core.
_CHUNK_PIXELS = 2**18


def chunks(order: NDArray[np.int64], *, size: int, device: torch.device) -> list[NDArray[np.int64]]:
    """Split the samples of a batch into chunks.

    Samples whose hue shift has the same position in the order of colour operations stay together, because `jitter_` is
    fast for such neighbours.

    Args:
        order: (n, 4), the order of each sample's colour operations, in the form that `jitter_` takes.
        size: Side of the views (augmented frames), pixels.
        device: Device of the views. An accelerator gets one chunk. A CPU gets several, to use its threads and caches.

    Returns:
        Sample numbers of each chunk; every sample is in exactly one chunk.
    """
    place = hue_place(order)
    by_place = np.argsort(place, kind="stable")
    if device.type != "cpu":
        return [by_place]
    num_threads = torch.get_num_threads()
    num_chunks = num_threads * -(-len(order) * size**2 // (_CHUNK_PIXELS * num_threads))
    # Running sum of the samples' costs. A sample with colour operations costs twice as much as a sample without.
    cost = np.cumsum(1 + (place[by_place] < 5))
    edges = np.searchsorted(cost, np.linspace(0, cost[-1], num_chunks + 1)[1:-1])
    return [chunk for chunk in np.split(by_place, edges) if len(chunk)]


def for_each(work: Callable[[NDArray[np.int64]], None], pieces: list[NDArray[np.int64]]) -> None:
    """Call `work` on each piece; as many pieces run at the same time as torch has threads."""
    num_threads = torch.get_num_threads()
    if len(pieces) == 1 or num_threads == 1:
        for piece in pieces:
            work(piece)
    else:
        list(_pool(num_threads, os.getpid()).map(work, pieces))


@cache
def _pool(num_threads: int, process: int) -> ThreadPoolExecutor:
    """Return a pool of threads in which each torch operation uses only the thread that calls it.

    The pool is cached by process id, so that a forked process makes its own pool.
    """
    started = threading.Barrier(num_threads)

    def start() -> None:
        torch.set_num_threads(1)
        # `get_num_threads` makes this thread adopt the setting (1) now.
        # Otherwise the thread would later adopt the default, which is restored below.
        torch.get_num_threads()
        started.wait()

    pool = ThreadPoolExecutor(num_threads, "augment", initializer=start)
    for begun in [pool.submit(int) for _ in range(num_threads)]:
        begun.result()
    # The threads' calls of `set_num_threads` also changed the default of threads that start later, so restore it.
    torch.set_num_threads(num_threads)
    return pool
