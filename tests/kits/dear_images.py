"""Images that are small on the wire and dear to decode: many scans, equal pixels or empty parts, a second size."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

_LONGEST_RUN = 2**15 - 1  # empty blocks that one code skips


def many_scans(side: int, *, num_scans: int) -> bytes:
    """A valid progressive JPEG of `side` x `side` grey pixels with up to 883 scans, almost all of them empty."""
    num_blocks = (-(-side // 8)) ** 2
    size = side.to_bytes(2, "big")
    head = [
        b"\xff\xd8",
        _segment(0xDB, bytes([0]) + bytes([1] * 64)),
        _segment(0xC2, bytes([8]) + size + size + bytes([1, 1, 0x11, 0])),
        _segment(0xC4, bytes([0x00, 1, *[0] * 15, 0x00])),  # DC: one code, no difference
        _segment(0xC4, bytes([0x10, 1, *[0] * 15, 0xE0])),  # AC: one code, a run of empty blocks
        _scan(band=0, high=0, low=0, bits="0" * num_blocks),
    ]
    runs = ("0" + "1" * 14) * -(-num_blocks // _LONGEST_RUN)
    steps = [(band, low) for band in range(1, 64) for low in range(13, -1, -1)]
    scans = [_scan(band, high=0 if low == 13 else low + 1, low=low, bits=runs) for band, low in steps[: num_scans - 1]]
    return b"".join([*head, *scans, b"\xff\xd9"])


def flat_png(side: int) -> bytes:
    """A PNG of `side` x `side` equal pixels: 3 KB for each million of them."""
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 7, np.uint8)).save(file, "PNG")
    return file.getvalue()


def many_parts(kind: str, num: int) -> bytes:
    """A valid small image with many markers or segments (JPEG) or chunks (PNG) that hold nothing."""
    if kind == "chunks":
        whole = flat_png(16)
        at = whole.index(b"IDAT") - 4
        return whole[:at] + _chunk(b"roBo", b"") * num + whole[at:]
    whole = many_scans(16, num_scans=2)
    return whole[:-2] + {"markers": b"\xff\x01", "segments": b"\xff\xe0\x00\x02"}[kind] * num + whole[-2:]


def two_headers(*sizes: tuple[int, int]) -> bytes:
    """A PNG with a header of each size, the pixels of none."""
    headers = [_chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6, 0, 0, 0)) for size in sizes]
    return b"\x89PNG\r\n\x1a\n" + b"".join(headers) + _chunk(b"IDAT", zlib.compress(bytes(64))) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + kind + payload + zlib.crc32(kind + payload).to_bytes(4, "big")


def _segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def _scan(band: int, high: int, low: int, bits: str) -> bytes:
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return _segment(0xDA, bytes([1, 1, 0x00, band, band, high << 4 | low])) + data
