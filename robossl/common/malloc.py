"""Keep freed CPU memory in the process, so that the next training step uses it again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameter numbers of mallopt(3)
# Value of both thresholds, in bytes (default: 128 KiB).
# glibc maps blocks larger than the mmap threshold one by one, and takes smaller blocks from the heap.
# If the free memory at the end of the heap is more than the trim threshold, glibc returns it to the system.
_LARGE = 2**31 - 1


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory; do nothing if the C library is not glibc.

    By default, glibc maps and unmaps the memory of every large tensor. A step of ResNet-18 at 64 px then causes 18,000
    page faults, which on a virtual machine can take longer than the step itself (`docs/performance.md`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            mallopt(parameter, _LARGE)
