"""Memory: what a training step frees is kept for the next one, instead of going back to the system and coming again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGE = 2**31 - 1  # bytes; larger blocks than the first threshold of 128 KiB come from the heap, which is not trimmed


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory; one that is not glibc is left as it is.

    By default glibc maps every large tensor anew and gives it back, so that a step of ResNet-18 at 64 px takes 18,000
    page faults, which on a virtual machine can take longer than the step (`docs/performance.md`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(parameter, _LARGE)
