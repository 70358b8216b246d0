"""Change the colours of a batch of frames, each frame with its own strength."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.augment.colour import jitter_


def jitter_frames(
    pixels: UInt8[ndarray, "b h w 3"], operation: int, strengths: Float[ndarray, " b"]
) -> UInt8[ndarray, "b h w 3"]:
    """Apply one colour operation of `robossl.augment.colour`. The effect equals that of torchvision's operation."""
    order = np.full((len(pixels), 4), -1, np.int64)
    order[:, 0] = operation
    factors = np.ones((len(pixels), 4), np.float32)
    factors[:, operation] = strengths
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous()
    # Change one frame at a time. Otherwise rounding could make the result depend on the other frames of the batch.
    for row in range(len(pixels)):
        jitter_(planes[row : row + 1], order[row : row + 1], factors[row : row + 1])
    changed: UInt8[ndarray, "b h w 3"] = planes.round_().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return changed


def apply_table(pixels: UInt8[ndarray, "b h w 3"], table: Float[ndarray, "b 3 256"]) -> UInt8[ndarray, "b h w 3"]:
    """Map each frame's pixel values by its table, which has an output (0 to 1) for each channel and value."""
    levels = (np.clip(table, 0, 1) * 255 + 0.5).astype(np.uint8)
    rows = np.arange(len(pixels))[:, None, None, None]
    return np.asarray(levels[rows, np.arange(3), pixels])


LEVELS = np.arange(256) / 255
