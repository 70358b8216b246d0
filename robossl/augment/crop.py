"""Crop, resize and flip in one operation. Two implementations give the same pixels, up to rounding.

On a CPU each sample is resized alone, in uint8, by the kernel that torchvision's antialiased `resized_crop` uses. On an
accelerator two matrix products resize the whole batch at once. The matrices hold the weights of the same filter.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

Interpolation = Literal["bilinear", "bicubic"]


def signed_box(
    crop: Float[Tensor, "*n 4"], flip: Float[Tensor, " *n"], source_hw: Int[Tensor, "*n 2"]
) -> Float[Tensor, "*n 4"]:
    """Return the corners x0 y0 x1 y1 of a crop in fractions of the frame; x0 > x1 if the crop is flipped."""
    top, left, height, width = crop.unbind(-1)
    source_height, source_width = source_hw.unbind(-1)
    x0, x1 = left / source_width, (left + width) / source_width
    box = torch.stack([x0, top / source_height, x1, (top + height) / source_height], -1)
    return torch.where(flip[..., None] > 0, box[..., [2, 1, 0, 3]], box)


def crop_each(
    frames: UInt8[Tensor, "n 3 h w"],
    rows: Int[Tensor, " m"],
    crop: Float[Tensor, "m 4"],
    flip: Float[Tensor, " m"],
    *,
    size: int,
    interpolation: Interpolation,
) -> Float[Tensor, "m 3 s s"]:
    """Crop the given frames one by one in uint8; this is the fast implementation on a CPU.

    Args:
        frames: Decoded frames; channels-last memory is faster.
        rows: Index (in `frames`) of the frame that each crop is cut from.
        crop: Top, left, height and width in pixels.
        flip: 1 if the crop is mirrored.
        size: Side of the result, pixels.
        interpolation: Filter of the resize, which is antialiased.

    Returns:
        Pixel values, whole numbers from 0 to 255.
    """
    levels = torch.empty(len(rows), 3, size, size)
    boxes: list[list[int]] = crop.int().tolist()
    flips: list[bool] = (flip > 0).tolist()
    for slot, row, (top, left, height, width), flipped in zip(levels, rows.tolist(), boxes, flips, strict=True):
        patch = frames[row : row + 1, :, top : top + height, left : left + width]
        resized = functional.interpolate(patch, size=(size, size), mode=interpolation, antialias=True)
        slot.copy_(resized[0].flip(-1) if flipped else resized[0])
    return levels


def crop_matrix(
    frames: UInt8[Tensor, "m 3 h w"],
    crop: Float[Tensor, "m 4"],
    flip: Float[Tensor, " m"],
    *,
    size: int,
    interpolation: Interpolation,
) -> Float[Tensor, "m 3 s s"]:
    """Crop a batch by two matrix products; this is the fast implementation on an accelerator.

    Args:
        frames: One decoded frame for each crop, on any device.
        crop: Top, left, height and width in pixels, on the device of the frames.
        flip: 1 if the crop is mirrored.
        size: Side of the result, pixels.
        interpolation: Filter of the resize, which is antialiased.

    Returns:
        Pixel values from 0 to 255, not rounded.
    """
    top, left, height, width = crop.unbind(-1)
    rows = resize_matrix(top, height, source=frames.shape[-2], size=size, interpolation=interpolation)
    columns = resize_matrix(left, width, source=frames.shape[-1], size=size, interpolation=interpolation)
    columns = torch.where(flip[:, None, None] > 0, columns.flip(1), columns)
    across = frames.float() @ columns[:, None].mT
    # A cubic filter overshoots 0 to 255. The uint8 kernel of the CPU clips after each direction, so clip here as well.
    return (rows[:, None] @ across.clamp_(0, 255)).clamp_(0, 255)


def resize_matrix(
    start: Float[Tensor, " m"],
    length: Float[Tensor, " m"],
    *,
    source: int,
    size: int,
    interpolation: Interpolation,
) -> Float[Tensor, "m size source"]:
    """Return the matrix that resizes a crop to `size` pixels along one axis.

    The crop starts at pixel `start` and is `length` pixels long; the frame has `source` pixels. Each row of the matrix
    holds weights that sum to 1. If the result is smaller than the crop, the filter is wider, which antialiases. As in
    torchvision, the filter reads no pixel outside the crop.
    """
    scale = (length / size)[:, None, None]
    widened = scale.clamp(min=1)
    output = torch.arange(size, device=start.device)[:, None]
    pixel = torch.arange(source, device=start.device) - start[:, None, None]
    distance = (pixel + 0.5 - scale * (output + 0.5)) / widened
    weights = _triangle(distance) if interpolation == "bilinear" else _cubic(distance)
    weights = weights * ((pixel >= 0) & (pixel < length[:, None, None]))
    return weights / weights.sum(-1, keepdim=True)


def _triangle(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _cubic(x: Tensor) -> Tensor:
    """Evaluate Keys' cubic kernel with a = -1/2, as in PIL and the antialiased resize of torch."""
    x = x.abs().clamp(max=2)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, far)
