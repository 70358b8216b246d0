"""Colour jitter as in the code of BYOL and SimCLR, which differs from torchvision's.

Contrast scales the difference from the mean of each channel; torchvision scales the difference from the mean luma.
Saturation scales the S of HSV, so that a pixel's largest channel does not change; torchvision mixes the pixel with its
luma. Brightness adds to the pixels in BYOL's code, and multiplies them in SimCLR's (version 2) and torchvision's. The
hue shift is the same in all three. Pixel values are float32, from 0 to 255, as in colour.py.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from robossl.augment.colour import BRIGHTNESS, CONTRAST, HUE, SATURATION, hue_shifts, put_rows, turn_hue_


def official_jitter_(
    x: Float[Tensor, "n 3 h w"], order: NDArray[np.int64], factors: NDArray[np.float32], *, additive: bool
) -> None:
    """Apply brightness, contrast, saturation and hue, to each sample in its own order; clip after each operation.

    Args:
        x: Pixel values, changed in place.
        order: (n, 4), number of the operation at each position (see `colour.jitter_`).
        factors: (n, 4), factor of each operation (see `colour.jitter_`).
        additive: True if a brightness of 1.3 adds 0.3 of the range (BYOL), False if it multiplies by 1.3 (SimCLR).
    """
    for place in range(order.shape[1]):
        for operation in (BRIGHTNESS, CONTRAST, SATURATION, HUE):
            rows = np.flatnonzero(order[:, place] == operation)
            if len(rows):
                chosen, own = torch.from_numpy(rows), factors[rows, operation]
                part = _apply_operation(x[chosen.to(x.device, non_blocking=True)], operation, own, additive=additive)
                put_rows(x, chosen, part.clamp_(0, 255))


def _apply_operation(part: Tensor, operation: int, factors: NDArray[np.float32], *, additive: bool) -> Tensor:
    if operation == HUE:
        turn_hue_(part, torch.from_numpy(hue_shifts(factors)).to(part.device, non_blocking=True))
        return part
    factor = torch.from_numpy(factors).to(part.device, non_blocking=True).view(-1, 1, 1, 1)
    if operation == BRIGHTNESS:
        return part + 255 * (factor - 1) if additive else part * factor
    if operation == CONTRAST:
        mean = part.mean((-2, -1), keepdim=True)
        return factor * (part - mean) + mean
    top, low = part.amax(1, keepdim=True), part.amin(1, keepdim=True)
    full = top / (top - low).clamp_min(1e-6)  # the factor at which the S of HSV reaches its limit, 1
    return top - (top - part) * torch.minimum(factor, full)
