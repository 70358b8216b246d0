"""CPU memory: keep the memory that a training step frees for the next step; do not return it to the system."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of parameters of mallopt(3)
# Threshold in bytes (default: 128 KiB). glibc maps larger blocks one by one and takes smaller blocks from the heap.
# It returns free memory at the end of the heap to the system only if that is more than this threshold.
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
