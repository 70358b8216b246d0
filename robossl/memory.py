"""Memory: keep what a training step frees for the next step, instead of returning it to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 2**31 - 1  # bytes; blocks above the default threshold of 128 KiB then come from the heap, which is not trimmed


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory; do nothing with another C library.

    By default glibc maps and unmaps every large tensor. A step of ResNet-18 at 64 px then takes 18,000 page faults,
    which on a virtual machine can take longer than the step itself (`docs/performance.md`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(parameter, _LARGE)
