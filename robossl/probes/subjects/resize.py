"""Resizing of whole frames for models that do not do it themselves: antialiased bilinear, as our encoders do."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def resized(frames: UInt8[ndarray, "b h w 3"], hw: tuple[int, int]) -> Float[ndarray, "b H W 3"]:
    """Frames squashed to a size, in 0..255; those that have it are taken as they are."""
    if frames.shape[1:3] == hw:
        return frames.astype(np.float32)
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    out: Float[ndarray, "b H W 3"] = (
        F.interpolate(pixels, hw, mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
    )
    return out


def resized_bytes(frames: UInt8[ndarray, "b h w 3"], hw: tuple[int, int]) -> UInt8[ndarray, "b H W 3"]:
    """The same, rounded to what a camera would give."""
    return resized(frames, hw).round().clip(0, 255).astype(np.uint8)
