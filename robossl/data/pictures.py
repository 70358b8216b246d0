"""Decode images to RGB within a pixel limit, resize them, and encode them as JPEG."""

from __future__ import annotations

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from robossl.data.source import Damaged

# Larger images are refused, because they may be decompression bombs. 64 megapixels are 192 MB of RGB.
MAX_PIXELS = 64_000_000
MAX_SIDE = 16_384
SMALL_HW = (24, 32)  # size of a small frame, by which frames are compared, in pixels
# Formats that Pillow may read; it detects them by content. Some of Pillow's other readers start external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")


def check_size(width: int, height: int) -> None:
    """Check the size of a frame before memory is allocated for it.

    Raises:
        Damaged: the frame has no pixels, more than `MAX_PIXELS`, or a side above `MAX_SIDE`.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise Damaged(f"{width}x{height} pixels; at most {MAX_PIXELS} pixels and sides of {MAX_SIDE} are allowed")


def decode_image(data: bytes) -> UInt8[ndarray, "h w 3"]:
    """Decode a JPEG, PNG, WebP, BMP or TIFF to upright RGB.

    Raises:
        Damaged: the data are not an image or are truncated, or the image is too large or has more than 8 bits per
            channel.
    """
    try:
        with warnings.catch_warnings():
            # Ignore Pillow's warnings about odd metadata and large images; `check_size` limits the size.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(*image.size)
                if image.mode.startswith(("I", "F")):
                    raise Damaged(f"image mode {image.mode}: only 8 bits per channel are supported")
                upright = ImageOps.exif_transpose(image)
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                return np.asarray(upright.convert("RGB"))
    except Damaged:
        raise
    # Pillow's readers raise any error (SyntaxError, struct.error, ...) for damaged bytes.
    except Exception as error:
        raise Damaged(f"damaged image ({error or type(error).__name__})") from error


def shrink(pixels: UInt8[ndarray, "h w 3"], short_side: int) -> Image.Image:
    """Shrink a frame so that its shorter side is `short_side`; keep smaller frames as they are.

    The filter is bilinear with antialiasing.
    """
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    image = Image.fromarray(pixels)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # When Pillow shrinks an image, it widens the filter, so the result is antialiased.
    return image.resize(size, Image.Resampling.BILINEAR)


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an image as baseline JPEG with 4:2:0 chroma."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def small_frame(pixels: UInt8[ndarray, "h w 3"]) -> UInt8[ndarray, "h w"]:
    """Return a frame in grey at `SMALL_HW`."""
    return resize_grey(pixels, SMALL_HW)


def grey_difference(a: UInt8[ndarray, "h w"], b: UInt8[ndarray, "h w"]) -> float:
    """Return the mean absolute difference of two grey frames, in grey levels (0 to 255)."""
    return float(np.abs(a.astype(np.int16) - b).mean())


def resize_grey(pixels: UInt8[ndarray, "h w 3"], hw: tuple[int, int]) -> UInt8[ndarray, "h w"]:
    """Return a frame in grey at a given height and width, each pixel the mean of the pixels that it covers."""
    height, width = hw
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
    return np.asarray(small.convert("L"))
