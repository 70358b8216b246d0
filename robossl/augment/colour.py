"""Colour operations that change a batch in place, with a factor for each sample; the results follow torchvision.

Pixel values are float32, from 0 to 255, of shape (n, 3, h, w), contiguous in (h, w).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
_LUMA = np.array([0.2989, 0.587, 0.114], dtype=np.float32)  # torchvision's weights; their sum is 0.9999
# Pixels per call of the hue shift, few enough that its intermediate results stay in the cache of a core.
_HUE_CHUNK_PIXELS = 2**16


def jitter_(x: Float[Tensor, "n 3 h w"], order: NDArray[np.int64], factors: NDArray[np.float32]) -> None:
    """Apply brightness, contrast, saturation and hue, to each sample in its own order.

    All operations except the hue shift are affine (see `affine_`), so samples can share a call even if the order of
    their affine operations differs. Neighbouring samples are processed together if their hue shift has the same
    position in their order. Sort the samples by this position (see `hue_place`) to make this function fast.

    Args:
        x: Pixel values, changed in place.
        order: (n, 4), number of the operation at each position: 0 brightness, 1 contrast, 2 saturation, 3 hue, -1 none.
        factors: (n, 4), factor of each operation, indexed by its number; the hue shift is a fraction of a full turn.
    """
    mix, lift = (torch.from_numpy(table).to(x.device, non_blocking=True) for table in _affine(order, factors))
    shifts = torch.from_numpy(hue_shifts(factors[:, HUE])).to(x.device, non_blocking=True)
    for start, stop in _runs(hue_place(order)):
        part = slice(start, stop)
        for place in range(order.shape[1]):
            operations = order[part, place]
            if (operations == HUE).all():
                turn_hue_(x[part], shifts[part])
            elif (operations >= 0).any():
                lifts = lift[part, place] if (operations == CONTRAST).any() else None
                affine_(x[part], mix[part, place], lifts)


def hue_place(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the position (0 to 3) of the hue shift in each sample's order of operations.

    The value is 4 for a sample without a hue shift, and 5 for a sample without any operation.
    """
    place = np.where((order == HUE).any(1), (order == HUE).argmax(1), 4)
    return np.where((order < 0).all(1), 5, place)


def affine_(x: Float[Tensor, "n 3 h w"], mix: Float[Tensor, "n 3 3"], lift: Float[Tensor, "n 3 1 1"] | None) -> None:
    """Mix the channels of each pixel, add a weighted sum of the image's channel means, and clip.

    The matrix `mix` holds the weights of the pixel's channels, and `lift` those of the channel means. If `lift` is
    None, the sum of means is not added. Three operations with a factor f have this form. Brightness multiplies the
    pixel by f. Contrast also adds (1 - f) times the mean luma of the image. Saturation, instead, adds (1 - f) times the
    luma of the pixel itself.
    """
    mixed = torch.bmm(mix, x.flatten(2)).view_as(x)
    if lift is not None:
        mixed += (x.mean((-2, -1), keepdim=True) * lift).sum(1, keepdim=True)
    torch.clamp(mixed, 0, 255, out=x)


def _affine(order: NDArray[np.int64], factors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the arguments `mix` (n, 4, 3, 3) and `lift` (n, 4, 3, 1, 1) of `affine_`.

    The first two axes are the sample, and the position in the order of its operations.
    """
    factor = np.take_along_axis(factors, order.clip(0), axis=1)
    scale = np.where((order >= 0) & (order != HUE), factor, 1)[..., None, None]
    luma = (1 - scale) * _LUMA
    mix = scale * np.eye(3, dtype=np.float32) + luma * (order == SATURATION)[..., None, None]
    return mix, (luma * (order == CONTRAST)[..., None, None])[..., 0, :, None, None]


def hue_shifts(turns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return three offsets per sample, for red, green and blue; shape (n, 3, 1, 1).

    Add the first offset to a hue to get the signed distance of the turned hue from red. The second offset gives the
    distance from green, and the third the distance from blue. Hues, offsets and distances are measured along the colour
    hexagon (see `turn_hue_`); their unit is one side of the hexagon. The offsets are from -3 to 3.

    Args:
        turns: Turn of each sample's hue, as a fraction of a full turn.
    """
    corners = np.array([0, -2, 2], dtype=np.float32)
    shifts: NDArray[np.float32] = np.remainder(6 * turns[:, None] + corners + 3, 6) - 3
    return shifts[..., None, None]


def turn_hue_(x: Float[Tensor, "n 3 h w"], shifts: Float[Tensor, "n 3 1 1"]) -> None:
    """Turn the hue as in HSV, but without a conversion to HSV; `shifts` are from `hue_shifts`.

    Let top and low be a pixel's largest and smallest channel, and chroma = top - low. The hue is the signed distance
    from red along the colour hexagon. Its unit is a side of the hexagon, which is as long as the chroma. Each channel
    has its own corner: red at 0, green at 2 and blue at -2. A channel equals top if the hue is at most 1 from the
    channel's corner, equals low if the hue is 2 or more away, and is linear in between.
    """
    num_samples = max(1, _HUE_CHUNK_PIXELS // (x.shape[-2] * x.shape[-1]))
    for part, shift in zip(torch.split(x, num_samples), torch.split(shifts, num_samples), strict=True):
        red, green, blue = torch.split(part, 1, dim=1)
        top, low = part.amax(1, keepdim=True), part.amin(1, keepdim=True)
        chroma = top - low
        way = (green + blue).sub_(red).sub_(low).add_(chroma)
        way = torch.copysign(way, green - blue, out=way)
        torch.mul(chroma, shift, out=part)
        part.add_(way).abs_().sub_(3 * chroma).abs_().add_(low.sub(chroma))
        torch.clamp(part, low, top, out=part)


def grayscale_(x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " m"]) -> None:
    """Turn the samples with these row numbers grey, in place."""
    put_rows(x, rows, gray(x[rows.to(x.device, non_blocking=True)]).expand(-1, 3, -1, -1))


def solarize_(x: Float[Tensor, "n 3 h w"], rows: Int[Tensor, " m"], *, threshold: float) -> None:
    """Invert the values at or above a threshold (in 0 to 1) in the samples with these row numbers, in place."""
    chosen = x[rows.to(x.device, non_blocking=True)]
    put_rows(x, rows, torch.where(chosen >= 255 * threshold, 255 - chosen, chosen))


def gray(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    """Return the luma of each pixel, which is a weighted sum of red, green and blue."""
    weights = torch.from_numpy(_LUMA).to(x.device, non_blocking=True).expand(len(x), 1, 3)
    return torch.bmm(weights, x.flatten(2)).view(-1, 1, *x.shape[2:])


def put_rows(x: Float[Tensor, "n ..."], rows: Int[Tensor, " m"], values: Float[Tensor, "m ..."]) -> None:
    """Assign `x[rows] = values`; the row numbers are on the CPU."""
    if x.device.type != "cpu":
        x.index_copy_(0, rows.to(x.device, non_blocking=True), values)
        return
    # On a CPU this loop is three times as fast as index_copy_.
    for row, value in zip(rows.tolist(), values, strict=True):
        x[row].copy_(value)


def _runs(values: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Return start and stop of each run of equal values."""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return pairwise(edges)
