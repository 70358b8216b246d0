"""Colour operations in place on a batch, each sample with its own factor; the meaning of each is torchvision's.

Pixels are float32 grey levels, 0 to 255, in planes: (n, 3, h, w) with contiguous (h, w).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_RED, _GREEN, _BLUE = 0.2989, 0.587, 0.114  # torchvision's luma; its sum is 0.9999
_HUE_CHUNK_PIXELS = 2**16  # what keeps the planes of the hue shift in a core's cache


def jitter_(
    x: Float[Tensor, "n 3 h w"], order: NDArray[np.int64], factors: Float[Tensor, "n 4"], depth: int = 0
) -> None:
    """Apply brightness, contrast, saturation and hue, to each sample in its own order.

    Runs of samples with the same next operation share one call, so samples sorted by their order are the fast case.

    Args:
        x: Grey levels, changed in place.
        order: (n, 4), which operation comes at which place (0 to 3 in the order named above), -1: none.
        factors: Factor of each operation, in the order named above; the hue's is in turns.
        depth: The place in the order to start at.
    """
    if depth == order.shape[1] or (order[:, depth:] < 0).all():
        return
    for start, stop in _runs(order[:, depth]):
        operation = int(order[start, depth])
        if operation >= 0:
            _OPERATIONS[operation](x[start:stop], factors[start:stop, operation, None, None, None])
        jitter_(x[start:stop], order[start:stop], factors[start:stop], depth + 1)


def brightness_(x: Tensor, factor: Tensor) -> None:
    x.mul_(factor).clamp_(max=255)


def contrast_(x: Tensor, factor: Tensor) -> None:
    means = x.mean((-2, -1), keepdim=True)
    x.mul_(factor).add_((1 - factor) * gray(means)).clamp_(0, 255)


def saturation_(x: Tensor, factor: Tensor) -> None:
    torch.lerp(gray(x), x, factor, out=x).clamp_(0, 255)


def hue_(x: Tensor, turns: Tensor) -> None:
    """Turn the hue of HSV without going through HSV.

    With top, low and chroma = top - low of a pixel, its hue is the signed way from red along the colour hexagon, in
    units where each of the six sides is as long as the chroma. A channel is full within one side of its corner of the
    hexagon (red 0, green 2, blue -2), empty from two sides on, and linear in between.
    """
    corners = torch.tensor([0.0, -2.0, 2.0], device=x.device).view(1, 3, 1, 1)
    shifts = torch.remainder(6 * turns + corners + 3, 6) - 3
    num_samples = max(1, _HUE_CHUNK_PIXELS // (x.shape[-2] * x.shape[-1]))
    for part, shift in zip(x.split(num_samples), shifts.split(num_samples), strict=True):
        _turn(part, shift)


def _turn(x: Tensor, shift: Tensor) -> None:
    red, green, blue = x.unbind(1)
    top, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    chroma = top - low
    way = (green + blue).sub_(red).sub_(low).add_(chroma)
    way = torch.copysign(way, green - blue, out=way)
    top, low, chroma, way = (plane.unsqueeze(1) for plane in (top, low, chroma, way))
    torch.mul(chroma, shift, out=x)
    x.add_(way).abs_().sub_(3 * chroma).abs_().add_(low - chroma)
    torch.clamp(x, low, top, out=x)


_OPERATIONS = (brightness_, contrast_, saturation_, hue_)


def grayscale_(x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " m"]) -> None:
    """Make the named samples gray."""
    put_rows(x, rows, gray(x[rows.to(x.device)]).expand(-1, 3, -1, -1))


def solarize_(x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " m"], *, threshold: float) -> None:
    """Invert the values at or above a threshold (in 0 to 1) of the named samples."""
    chosen = x[rows.to(x.device)]
    put_rows(x, rows, torch.where(chosen >= 255 * threshold, 255 - chosen, chosen))


def gray(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Luma of each pixel."""
    return (x[:, 0:1] * _RED).add_(x[:, 1:2], alpha=_GREEN).add_(x[:, 2:3], alpha=_BLUE)


def put_rows(x: Float[Tensor, "n ..."], rows: Int[Tensor, " m"], values: Float[Tensor, "m ..."]) -> None:
    """`x[rows] = values`; the row numbers are on the CPU."""
    if x.device.type != "cpu":
        x.index_copy_(0, rows.to(x.device), values)
        return
    for row, value in zip(rows.tolist(), values, strict=True):  # three times as fast as index_copy_ on a CPU
        x[row].copy_(value)


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Start and stop of each stretch of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return pairwise(edges)
