"""Shared memory: regions that clients on this host register to pass pixels without the network.

Regions are read and written with system calls, never mapped. If a client shortens its file, such a call gives an error,
while access to a mapping would kill the server with SIGBUS.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from robossl_client.wire import Value, get_value

from robossl_serving.refused import RefusedError, bad_request

FOLDER = Path("/dev/shm")
_KEY = re.compile(r"/?(robossl[-_][A-Za-z0-9_.-]{1,100})")


@dataclass(frozen=True, slots=True)
class RegisteredRegion:
    """A registered part of a file in shared memory."""

    name: str
    key: str
    offset: int
    size: int
    descriptor: int


class SharedMemory:
    """The registered regions of one server."""

    def __init__(self, *, max_regions: int) -> None:
        self._max_regions = max_regions
        self._lock = threading.Lock()
        self._regions: dict[str, RegisteredRegion] = {}

    def register(self, name: str, key: str, *, offset: int, size: int) -> None:
        """Register a part of the file that `key` names as the region `name`.

        Raises:
            RefusedError: the name is taken, the key is not allowed, or the file is missing or too small.
        """
        match = _KEY.fullmatch(key)
        if match is None or not name or len(name) > 128:
            raise bad_request("a region needs a name, and a key that is a plain file name starting with 'robossl-'")
        with self._lock:
            # Drop regions whose files were deleted, for example because their clients were killed.
            for each in [each for each in self._regions.values() if _is_gone(each)]:
                os.close(self._regions.pop(each.name).descriptor)
            if name in self._regions:
                raise RefusedError(grpc.StatusCode.ALREADY_EXISTS, "a region of this name is registered; unregister it")
            if len(self._regions) >= self._max_regions:
                raise RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"at most {self._max_regions} regions are registered"
                )
            descriptor = _open(match[1])
            region = RegisteredRegion(name, key, offset, size, descriptor)
            try:
                _check_size(region)
            except RefusedError:
                os.close(descriptor)
                raise
            self._regions[name] = region

    def unregister(self, name: str) -> None:
        """Remove a region, or all regions if the name is empty; an unknown name is no error."""
        with self._lock:
            for region in [self._regions.pop(each) for each in list(self._regions) if name in ("", each)]:
                os.close(region.descriptor)

    def regions(self) -> list[RegisteredRegion]:
        """Return all registered regions."""
        with self._lock:
            return list(self._regions.values())

    def read(self, parameters: Any, *, max_bytes: int) -> bytes:
        """Return the bytes that an input's parameters point at.

        Raises:
            RefusedError: the parameters point outside the region or at more than `max_bytes`, or the region is gone.
        """
        with self._lock:
            region, offset, size = self._find(parameters)
            if size > max_bytes:
                raise bad_request(f"the input has {size} bytes in shared memory; at most {max_bytes} are allowed")
            raw = os.pread(region.descriptor, size, region.offset + offset)
        if len(raw) != size:
            raise bad_request("the shared memory region is shorter than it was")
        return raw

    def write(self, parameters: Any, raw: bytes) -> None:
        """Write an output to the place in shared memory that its parameters name.

        Raises:
            RefusedError: the output does not fit, or the region is gone.
        """
        with self._lock:
            region, offset, size = self._find(parameters)
            if len(raw) > size:
                raise bad_request(f"the output has {len(raw)} bytes, its shared memory {size}")
            os.pwrite(region.descriptor, raw, region.offset + offset)

    def place(self, parameters: Any) -> dict[str, Value | None]:
        """Return the shared memory parameters of an output, so that the reply can repeat them."""
        return {key: get_value(parameters[key]) for key in parameters if key.startswith("shared_memory_")}

    def close(self) -> None:
        """Remove all regions."""
        self.unregister("")

    def _find(self, parameters: Mapping[str, Any]) -> tuple[RegisteredRegion, int, int]:
        name, offset, size = (
            get_value(parameters[f"shared_memory_{key}"]) if f"shared_memory_{key}" in parameters else default
            for key, default in (("region", ""), ("offset", 0), ("byte_size", -1))
        )
        region = self._regions.get(str(name))
        if region is None:
            raise bad_request("no shared memory region of this name is registered")
        if not isinstance(offset, int) or not isinstance(size, int) or not 0 <= offset <= offset + size <= region.size:
            raise bad_request(f"offset and byte_size leave the shared memory region of {region.size} bytes")
        _check_size(region)
        return region, offset, size


def _open(name: str) -> int:
    try:
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        raise bad_request("the server cannot open shared memory of this key") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise bad_request("the key is not shared memory")
    return descriptor


def _check_size(region: RegisteredRegion) -> None:
    if _is_gone(region):
        raise bad_request("the shared memory region was removed; register it anew")
    if region.size <= 0 or region.offset + region.size > os.fstat(region.descriptor).st_size:
        raise bad_request("the shared memory is smaller than the region")


def _is_gone(region: RegisteredRegion) -> bool:
    return os.fstat(region.descriptor).st_nlink == 0
