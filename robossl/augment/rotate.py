"""Rotate whole frames about their centre, with bilinear interpolation; the area outside the frame is black."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional


def rotate(
    frames: UInt8[Tensor, "n 3 h w"], degrees: Float[Tensor, " n"], source_hw: Int[Tensor, "n 2"]
) -> UInt8[Tensor, "n 3 h w"]:
    """Rotate each frame counterclockwise and keep its size, as torchvision's bilinear `rotate` does.

    Args:
        frames: Decoded frames, padded at the right and bottom to a common size.
        degrees: Angle of each frame.
        source_hw: Size of each frame without its padding, pixels.

    Returns:
        Frames of the same size in channels-last memory; the padding has no defined content.
    """
    height, width = frames.shape[-2:]
    source = source_hw.to(frames.device, torch.float32, non_blocking=True)[:, :, None, None]
    y = torch.arange(height, device=frames.device)[:, None].expand(height, width)
    x = torch.arange(width, device=frames.device).expand(height, width)
    inside = (y < source[:, 0]) & (x < source[:, 1])
    dy, dx = y - (source[:, 0] - 1) / 2, x - (source[:, 1] - 1) / 2
    radians = torch.deg2rad(degrees.to(frames.device, non_blocking=True))[:, None, None]
    from_x = torch.cos(radians) * dx - torch.sin(radians) * dy + source[:, 1] / 2
    from_y = torch.sin(radians) * dx + torch.cos(radians) * dy + source[:, 0] / 2
    grid = torch.stack([2 * from_x / width - 1, 2 * from_y / height - 1], -1)
    # Make the padding black, because interpolation mixes it in at the border.
    seen = frames * inside[:, None]
    turned = functional.grid_sample(seen.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return turned.round_().to(torch.uint8, memory_format=torch.channels_last)
