"""Ask the CUDA driver for its GPUs, and the installed libraries for their versions, without loading torch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Attributes of cuDeviceGetAttribute (CUDA driver API, enum CUdevice_attribute).
_MAJOR, _MINOR = 75, 76
# onnxruntime links TensorRT by major version: its provider loads libnvinfer.so.10 and no other.
TENSORRT_LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """A GPU that the CUDA driver reports."""

    name: str
    capability: tuple[int, int]  # compute capability, such as (9, 0)


def find_gpus() -> tuple[GpuInfo, ...]:
    """Return the GPUs that the CUDA driver reports; none without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, number) for number in range(count.value))


def _describe(driver: ctypes.CDLL, number: int) -> GpuInfo:
    name, major, minor = ctypes.create_string_buffer(256), ctypes.c_int(0), ctypes.c_int(0)
    device = ctypes.c_int(0)
    driver.cuDeviceGet(ctypes.byref(device), number)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    return GpuInfo(name.value.decode(errors="replace"), (major.value, minor.value))


def load_tensorrt() -> str | None:
    """Load TensorRT's libraries, so that onnxruntime finds them, and return their version; None if they are missing.

    The wheel `tensorrt-cu13-libs` puts them into a package folder where the system's linker does not look.
    """
    spec = find_spec("tensorrt_libs")
    folders = [Path(place) for place in (spec.submodule_search_locations or ()) if spec] if spec else []
    found: list[ctypes.CDLL] = []
    for name in TENSORRT_LIBRARIES:
        for path in (*(str(folder / name) for folder in folders), name):
            try:
                found.append(ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL))
            except OSError:
                continue
            break
        else:
            return None
    number = int(found[0].getInferLibVersion())  # 101305 for 10.13.5
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def library_versions() -> dict[str, str | None]:
    """Return the versions of onnxruntime, of the CUDA that it was built with, and of TensorRT (None if missing)."""
    import onnxruntime
    from onnxruntime.capi import build_and_package_info

    cuda: str | None = getattr(build_and_package_info, "cuda_version", None)
    return {"onnxruntime": str(onnxruntime.__version__), "cuda": cuda, "tensorrt": load_tensorrt()}
