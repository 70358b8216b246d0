"""Pictures: bytes to RGB within a pixel limit, a smaller RGB, and JPEG bytes."""

from __future__ import annotations

import io
import warnings

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageOps

from robossl.data.source import Damaged

MAX_PIXELS = 64_000_000  # a 64-megapixel frame is 192 MB of RGB; anything larger is taken for a decompression bomb
MAX_SIDE = 16_384
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")  # by content: others may start programs of their own


def check_size(width: int, height: int) -> None:
    """Refuse a frame size before memory is taken for it.

    Raises:
        Damaged: no pixels, more than `MAX_PIXELS`, or a side beyond `MAX_SIDE`.
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise Damaged(f"{width}x{height} pixels, allowed are {MAX_PIXELS} and sides of {MAX_SIDE}")


def decode_image(data: bytes) -> UInt8[ndarray, "h w 3"]:
    """Decode a JPEG, PNG, WebP, BMP or TIFF to upright RGB.

    Raises:
        Damaged: not an image, truncated, too large, or more than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata; the size has its own check
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(*image.size)
                if image.mode.startswith(("I", "F")):
                    raise Damaged(f"image mode {image.mode}: only 8 bits a channel are read")
                upright = ImageOps.exif_transpose(image)
                if "transparency" in upright.info:
                    upright = upright.convert("RGBA")
                return np.asarray(upright.convert("RGB"))
    except Damaged:
        raise
    except Exception as error:  # Pillow's readers raise whatever the bytes provoke (SyntaxError, struct.error, ...)
        raise Damaged(f"damaged image ({error or type(error).__name__})") from error


def shrink(pixels: UInt8[ndarray, "h w 3"], short_side: int) -> Image.Image:
    """Scale so that the shorter side is `short_side`, antialiased bilinear; smaller frames stay as they are."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    image = Image.fromarray(pixels)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR)  # Pillow widens the filter with the scale: antialiased


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode as baseline JPEG with 4:2:0 chroma."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()
