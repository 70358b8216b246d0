"""Colour changes of a batch of frames, each with its own strength."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray

from robossl.colour import jitter_


def jittered(
    pixels: UInt8[ndarray, "b h w 3"], operation: int, strengths: Float[ndarray, " b"]
) -> UInt8[ndarray, "b h w 3"]:
    """One operation of `robossl.colour`, as torchvision means it."""
    order = np.full((len(pixels), 4), -1, np.int64)
    order[:, 0] = operation
    factors = np.ones((len(pixels), 4), np.float32)
    factors[:, operation] = strengths
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().contiguous()
    for row in range(len(pixels)):  # one at a time: the same bits whatever the batch
        jitter_(planes[row : row + 1], order[row : row + 1], factors[row : row + 1])
    changed: UInt8[ndarray, "b h w 3"] = planes.round_().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return changed


def through_table(pixels: UInt8[ndarray, "b h w 3"], table: Float[ndarray, "b 3 256"]) -> UInt8[ndarray, "b h w 3"]:
    """Replace each grey level of each channel by that of a table, in 0 to 1."""
    levels = (np.clip(table, 0, 1) * 255 + 0.5).astype(np.uint8)
    rows = np.arange(len(pixels))[:, None, None, None]
    return np.asarray(levels[rows, np.arange(3), pixels])


LEVELS = np.arange(256) / 255
