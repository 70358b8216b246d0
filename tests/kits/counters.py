"""Pictures with a burnt-in counter that survives JPEG and H.264, and the number read back from them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from robossl.data.source import Frame
from robossl.data.sources import source_class

BITS = 8


def picture(number: int, h: int = 48, w: int = 64) -> np.ndarray:
    """A reddish picture; its upper half shows the bits of the number, white for 1."""
    pixels = np.full((h, w, 3), (180, 60, 40), np.uint8)
    for bit in range(BITS):
        pixels[: h // 2, bit * w // BITS : (bit + 1) * w // BITS] = 255 * (number >> bit & 1)
    return pixels


def read(pixels: np.ndarray) -> int:
    """The number of a picture, after a check that the lower half is still red (no swapped channels)."""
    height, width = pixels.shape[:2]
    red, green, blue = pixels[3 * height // 4, width // 2].astype(int)
    assert red > green + 60 and red > blue + 60, (red, green, blue)
    return sum(
        int(pixels[height // 4, (2 * bit + 1) * width // (2 * BITS)].astype(int).mean() > 128) << bit
        for bit in range(BITS)
    )


def jpeg(number: int, h: int = 48, w: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(number, h, w)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def read_all(root: Path, format: str) -> dict[str, list[Frame]]:
    """All frames of a source, as a worker reads them: with an instance that never listed."""
    listing = source_class(format)(root).listing()
    assert [unit.key for unit in listing.units] == sorted(unit.key for unit in listing.units)
    return {unit.key: list(source_class(format)(root).frames(unit)) for unit in listing.units}


def check(frames: list[Frame], numbers: list[int], seconds: list[float]) -> None:
    """The frames show these numbers at these times, to the millisecond."""
    assert [read(frame.pixels) for frame in frames] == numbers
    np.testing.assert_allclose([frame.time_seconds for frame in frames], seconds, atol=5e-4)
