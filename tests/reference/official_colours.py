"""Colours and blur of BYOL's and SimCLR's code by the letter, one pixel at a time; values lie in 0 to 1.

Facts read in deepmind-research/byol/utils/augmentations.py and google-research/simclr/data_util.py.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

Pixel = tuple[float, float, float]
Image = Sequence[Sequence[Pixel]]  # rows of pixels
OPERATIONS = ("brightness", "contrast", "saturation", "hue")


def clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def per_pixel(image: Image, change) -> Image:
    return [[tuple(map(clip, change(pixel))) for pixel in row] for row in image]


def brightness(image: Image, factor: float, whose: str) -> Image:
    """BYOL adds what is drawn around 0; SimCLR's second version multiplies by what is drawn around 1."""
    if whose == "byol":
        return per_pixel(image, lambda pixel: [value + (factor - 1) for value in pixel])
    return per_pixel(image, lambda pixel: [value * factor for value in pixel])


def contrast(image: Image, factor: float, whose: str) -> Image:
    pixels = [pixel for row in image for pixel in row]
    means = [sum(channel) / len(pixels) for channel in zip(*pixels, strict=True)]
    return per_pixel(image, lambda pixel: [factor * (v - m) + m for v, m in zip(pixel, means, strict=True)])


def saturation(image: Image, factor: float, whose: str) -> Image:
    def change(pixel: Pixel) -> Pixel:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb(h, clip(s * factor), v)

    return per_pixel(image, change)


def hue(image: Image, turns: float, whose: str) -> Image:
    def change(pixel: Pixel) -> Pixel:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((h + turns) % 1.0, s, v)

    return per_pixel(image, change)


def jitter(image: Image, order: Sequence[int], factors: Sequence[float], whose: str) -> Image:
    for operation in order:
        if operation >= 0:
            image = globals()[OPERATIONS[operation]](image, factors[operation], whose)
    return image


def grey(image: Image) -> Image:
    return per_pixel(image, lambda pixel: [0.2989 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]] * 3)


def blur(image: Image, sigma: float) -> Image:
    """First along rows, then along columns; the kernel is a tenth of the side, beyond the border lie zeros."""
    radius = int(len(image) / 10 / 2)
    kernel = [math.exp(-(x**2) / (2 * sigma**2)) for x in range(-radius, radius + 1)]
    kernel = [value / sum(kernel) for value in kernel]

    def along(row: Sequence[Pixel]) -> list[Pixel]:
        return [
            tuple(
                sum(kernel[k] * row[at + k - radius][c] for k in range(len(kernel)) if 0 <= at + k - radius < len(row))
                for c in range(3)
            )
            for at in range(len(row))
        ]

    across = [along(row) for row in image]
    down = [along(column) for column in zip(*across, strict=True)]
    return per_pixel(list(zip(*down, strict=True)), lambda pixel: pixel)


def view(image: Image, params: dict, whose: str) -> Image:
    """All that follows the crop, in the order of the code."""
    image = jitter(image, params["order"], params["factors"], whose)
    image = grey(image) if params["gray"] else image
    return blur(image, params["sigma"]) if params["sigma"] else image
