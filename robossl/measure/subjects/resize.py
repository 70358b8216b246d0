"""Resize whole frames for models that do not resize them: antialiased bilinear, as in our encoders."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray


def resize(frames: UInt8[ndarray, "b h w 3"], hw: tuple[int, int]) -> Float[ndarray, "b H W 3"]:
    """Resize frames without keeping their aspect ratio; values stay in 0 to 255."""
    if frames.shape[1:3] == hw:
        return frames.astype(np.float32)
    import torch
    import torch.nn.functional as F

    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    resized: Float[ndarray, "b H W 3"] = (
        F.interpolate(pixels, hw, mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
    )
    return resized


def resize_to_bytes(frames: UInt8[ndarray, "b h w 3"], hw: tuple[int, int]) -> UInt8[ndarray, "b H W 3"]:
    """Resize frames and round the values to uint8, the type of camera frames."""
    return resize(frames, hw).round().clip(0, 255).astype(np.uint8)
