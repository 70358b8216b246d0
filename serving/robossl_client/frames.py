"""Check frames before sending, and convert them to bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from robossl_client.errors import RequestError

Frames = npt.NDArray[np.uint8] | Sequence[bytes]  # (b, h, w, 3) RGB, or JPEGs and PNGs of one size
_BYTES = (bytes, bytearray, memoryview)


def check_frames(frames: object, *, fixed_hw: tuple[int, int] | None = None) -> None:
    """Check type and shape of frames. Encoded images are not decoded here, so the server checks their size.

    Args:
        frames: The argument to check.
        fixed_hw: The only size that the encoder takes; None for any.

    Raises:
        RequestError: the argument does not hold frames, or holds frames of another size.
    """
    problem = _array_problem(frames) if isinstance(frames, np.ndarray) else _images_problem(frames)
    if problem is not None:
        raise RequestError(
            f"frames must be uint8 RGB (b, h, w, 3), b at least 1, or a list of JPEGs or PNGs as bytes; got {problem}"
        )
    if fixed_hw is not None and isinstance(frames, np.ndarray) and frames.shape[1:3] != fixed_hw:
        height, width = fixed_hw
        raise RequestError(f"the encoder takes frames of {height}x{width} only, got {frames.shape}; resize them")


def copy_frames(frames: Frames) -> Frames:
    """Copy frames that wait to be sent, because a camera driver reuses its buffer."""
    return frames.copy() if isinstance(frames, np.ndarray) else [bytes(image) for image in frames]


def stack_cameras(frames: object) -> npt.NDArray[np.uint8]:
    """Stack one (h, w, 3) frame of each camera into a batch.

    Raises:
        RequestError: the argument is not a dict of frames, or the frames have different sizes.
    """
    if not isinstance(frames, Mapping) or not frames:
        got = "no camera" if isinstance(frames, Mapping) else _name(frames)
        raise RequestError(f"pass a dict of camera name to uint8 RGB frame (h, w, 3); got {got}")
    for name, frame in frames.items():
        if not isinstance(name, str) or not isinstance(frame, np.ndarray) or frame.ndim != 3:
            got = frame.shape if isinstance(frame, np.ndarray) else _name(frame)
            raise RequestError(f"pass a dict of camera name to uint8 RGB frame (h, w, 3); got {name!r}: {got}")
    if len({frame.shape for frame in frames.values()}) != 1:
        shapes = ", ".join(f"{name} {frame.shape}" for name, frame in frames.items())
        raise RequestError(f"cameras of one call must have frames of one size, got {shapes}; call encode for each")
    return np.stack(list(frames.values()))


def raw_bytes(frames: Frames) -> bytes:
    """Return frames as the bytes that the protocol sends; each encoded image comes after its length (4 bytes)."""
    if isinstance(frames, np.ndarray):
        return frames.tobytes()
    images = map(bytes, frames)
    return b"".join(len(image).to_bytes(4, "little") + image for image in images)


def raw_view(frames: Frames) -> bytes | memoryview:
    """Return the same bytes as `raw_bytes`, but do not copy an array that is contiguous."""
    return np.ascontiguousarray(frames).reshape(-1).data if isinstance(frames, np.ndarray) else raw_bytes(frames)


def _array_problem(frames: npt.NDArray[Any]) -> str | None:
    if frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3 and frames.size > 0:
        return None
    advice = "; pass frame[None]" if frames.ndim == 3 and frames.dtype == np.uint8 and frames.shape[2] == 3 else ""
    return f"{frames.dtype} {frames.shape}{advice}"


def _images_problem(frames: object) -> str | None:
    if isinstance(frames, _BYTES):
        return f"{_name(frames)}; pass one image as [image]"
    if isinstance(frames, str) or not isinstance(frames, Sequence):
        return _name(frames)
    if not frames:
        return f"an empty {_name(frames)}"
    for place, image in enumerate(frames):
        if isinstance(image, np.ndarray):
            return f"a {_name(frames)} with an array {image.shape} at {place}; pass np.stack(frames)"
        if not isinstance(image, _BYTES):
            return f"a {_name(frames)} with {_name(image)} at {place}"
    return None


def _name(value: object) -> str:
    return "None" if value is None else type(value).__name__
