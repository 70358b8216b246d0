"""Check and decode JPEG and PNG images; their size and decoding time are known before decoding starts."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from robossl_serving.limits import Limits
from robossl_serving.refused import bad_request

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA"}
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a JPEG marker that is neither a stuffed byte nor a restart marker
_START_OF_SCAN, _END_OF_IMAGE, _WITHOUT_LENGTH = 0xDA, 0xD9, (0x01, 0xD8)
_JPEG_PIXEL_S, _SCAN_PIXEL_S, _PNG_PIXEL_S = 5e-9, 1e-9, 45e-9  # decoding time per pixel on one 2 GHz core
# The number of JPEG markers and PNG chunks of a call is limited, because Python reads them one by one.
# Usual images have one marker or chunk per few kilobytes.
_PARTS = 2**14
_STRIP = 2**18  # number of pixels of a PNG that are converted at a time


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """Encoded images of one size, checked against the limits."""

    encoded: tuple[bytes, ...]
    hw: tuple[int, int]
    expected_s: float  # decoding time on an idle machine

    @property
    def size(self) -> tuple[int, int, int]:
        """Number, height and width of the images."""
        return (len(self.encoded), *self.hw)

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all decoded pixels."""
        return len(self.encoded) * self.hw[0] * self.hw[1] * 3

    @property
    def working_bytes(self) -> int:
        """Bytes that decoding one image needs beside its pixels: 6 per pixel, as for a JPEG (a PNG needs only 4)."""
        return self.hw[0] * self.hw[1] * 6

    def decode(self, check: Callable[[], None]) -> UInt8[ndarray, "b h w 3"]:
        """Decode all images; before each image, call `check`, which raises an error if the client has left.

        Raises:
            RefusedError: an image is damaged or has more than 8 bits a sample, or the client has left.
        """
        out = np.empty((*self.size, 3), np.uint8)
        for row, image in zip(out, self.encoded, strict=True):
            check()
            _decode(image, row)
        return out


def inspect_images(encoded: Sequence[bytes], *, limits: Limits) -> EncodedImages:
    """Check images against the limits, from their headers and the number of scans (passes over the pixels) of JPEGs.

    Raises:
        RefusedError: an image is neither JPEG nor PNG, sizes differ, or decoding needs too much memory or time.
    """
    sizes = {_image_hw(image) for image in encoded}
    if len(sizes) != 1:
        raise bad_request("the images of one call must be of one size; send one call for each size")
    hw = sizes.pop()
    pixels = hw[0] * hw[1]
    if not 0 < len(encoded) * pixels * 3 <= limits.decoded_bytes:
        raise bad_request(f"the images are larger than {limits.decoded_bytes} bytes once decoded")
    scans = _count_scans(encoded)
    if max(scans) > limits.scans or sum(scans) * pixels > limits.scan_pixels:
        raise bad_request(
            f"a JPEG has {max(scans)} scans of {pixels} pixels; allowed are {limits.scans} scans, and "
            f"{limits.scan_pixels} pixels in all scans of a call: save it with fewer, or not progressive"
        )
    seconds = (_PNG_PIXEL_S if not num else _JPEG_PIXEL_S + num * _SCAN_PIXEL_S for num in scans)
    return EncodedImages(tuple(encoded), hw, pixels * sum(seconds))


def _count_scans(encoded: Sequence[bytes]) -> list[int]:
    scans, room = [], _PARTS
    for image in encoded:
        is_png = image.startswith(_PNG)
        parts = list(islice(_png_chunks(image) if is_png else jpeg_markers(image), room + 1))
        room -= len(parts)
        if room < 0:
            raise bad_request(f"the images of the call have more than {_PARTS} markers or chunks; save them anew")
        scans.append(0 if is_png else max(1, parts.count(_START_OF_SCAN)))
    return scans


def jpeg_markers(image: bytes) -> Iterator[int]:
    """Yield the codes of a JPEG's markers, by which the caller counts the scans.

    A scan is one pass of the decoder over all pixels, so the decoding time grows with the number of scans. If the JPEG
    has at most one scan, yield only one code, that of the start of a scan.
    """
    if image.count(bytes((0xFF, _START_OF_SCAN))) <= 1:
        # This fast count of bytes is enough for most cameras, because they write only one scan.
        # The data of a scan never contain the bytes of a marker, so they are not counted as another scan.
        yield _START_OF_SCAN
        return
    place = len(_JPEG)
    while (found := _MARKER.search(image, place)) and image[found.start() + 1] != _END_OF_IMAGE:
        code, place = image[found.start() + 1], found.end()
        if code not in _WITHOUT_LENGTH:
            place += max(2, int.from_bytes(image[place : place + 2], "big"))
        yield code


def _png_chunks(image: bytes) -> Iterator[int]:
    """Yield the byte offsets of a PNG's chunks."""
    place = len(_PNG)
    while place + 8 <= len(image) and image[place + 4 : place + 8] != b"IEND":
        yield place
        place += 12 + int.from_bytes(image[place : place + 4], "big")


def _image_hw(image: bytes) -> tuple[int, int]:
    if image.startswith(_PNG) and image[12:16] == b"IHDR" and len(image) >= 24:
        width, height = struct.unpack(">II", image[16:24])
        return height, width
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(image)
    except ValueError:
        raise bad_request("an image is neither a JPEG nor a PNG that can be read") from None
    return height, width


def _decode(image: bytes, out: UInt8[ndarray, "h w 3"]) -> None:
    try:
        if image.startswith(_PNG):
            _decode_png(image, out)
        else:
            simplejpeg.decode_jpeg(image, "RGB", buffer=out)
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise bad_request("an image is damaged") from None


def _decode_png(image: bytes, out: UInt8[ndarray, "h w 3"]) -> None:
    with Image.open(io.BytesIO(image), formats=["PNG"]) as opened:
        if opened.mode not in _PNG_MODES:  # Pillow would truncate 16-bit samples
            raise bad_request("a PNG has more than 8 bits a sample; convert it")
        height, width = out.shape[:2]
        if opened.size != (width, height):  # happens if the file has a second header with another size
            raise bad_request("an image is damaged")
        opened.load()
        rows = max(1, _STRIP // width)
        # Convert the image in strips, because Pillow copies the converted pixels twice.
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            out[top:bottom] = np.asarray(opened.crop((0, top, width, bottom)).convert("RGB"))
