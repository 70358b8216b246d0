"""Provider: what onnxruntime runs on; one asked for by name is that one or an error."""

from __future__ import annotations

import ctypes
from typing import Literal

from robossl.session import Provider

ProviderChoice = Literal["auto", "cpu", "cuda", "tensorrt"]


def choose_provider(choice: ProviderChoice) -> Provider:
    """The provider to open sessions on; `auto` is CUDA where there is a device, else the CPU.

    TensorRT is taken by name only: it builds engines for minutes and rounds differently.
    """
    if choice != "auto":
        return choice
    return "cuda" if num_cuda_devices() else "cpu"


def num_cuda_devices() -> int:
    """CUDA devices that the driver sees; none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
