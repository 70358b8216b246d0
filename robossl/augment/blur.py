"""Gaussian blur of a batch with a sigma for each sample: one matrix product along the rows, one along the columns.

The images are views (augmented frames). The kernel has 2 * radius + 1 taps (weights). By default its radius is 3 times
the largest sigma that the view's specification allows (13 taps for a sigma of 2 pixels), whatever the view's size. This
cuts off the tails of the Gaussian, which contribute less than one grey level. MoCo's blur (PIL) cuts off nothing. By
default the border is reflected, as in torchvision.

A view with the colours of BYOL's or SimCLR's code is blurred as in that code. The width of the kernel is a tenth of the
view's width, and pixels outside the border are zero. For a view of 224 pixels, this kernel has 23 taps. For 96 pixels,
it has only 9 taps, so a Gaussian with a sigma of 2 pixels is cut off at 2 sigma.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Border = Literal["reflect", "zeros"]

# Views with fewer pixels per side than this are blurred without matrix products.
# With matrix products, a sample's result could depend on the other samples of its batch.
# This happened for such small views on one of two tested processors, and only in the last bits of the result.
_SMALL = 16
# Each matrix product blurs this many rows (or columns) of a large view.
# The blur matrix is mostly zeros outside a band, and products in blocks skip most of these zeros.
_BLOCK = 48


def kernel_radius(sigma_max: float, size: int) -> int:
    """Return the number of taps (weights of the kernel) on each side of the centre.

    It is at most `size` - 1, because the mirror image at the border has no more pixels.
    """
    return min(math.ceil(3 * sigma_max), size - 1)


def official_radius(size: int) -> int:
    """Return the number of taps (weights of the kernel) on each side of the centre in BYOL's and SimCLR's code.

    In their code, the width of the whole kernel is a tenth of the image's width.
    """
    return size // 20


def gaussian_blur(
    x: Float[Tensor, "n 3 s s"], sigma: Float[Tensor, " n"], *, radius: int, border: Border = "reflect"
) -> Float[Tensor, "n 3 s s"]:
    """Blur square images, each with its own sigma > 0 in pixels; the kernel has 2 * `radius` + 1 taps (weights)."""
    offset = torch.arange(-radius, radius + 1, device=x.device)
    taps = torch.softmax(-(offset**2) / (2 * sigma[:, None] ** 2), dim=-1)
    # Set tiny weights to 0. Otherwise some are denormal numbers, which make the products ten times slower.
    taps = taps * (taps > 1e-9)
    size = x.shape[-1]
    if size < _SMALL:
        for dim in (-1, -2):
            near = zip(taps.T, *_sources(size, radius, border, x.device), strict=True)
            weight = (-1, 1) if dim == -2 else (1, -1)
            x = sum(
                x.index_select(dim, source) * tap[:, None, None, None] * seen.view(weight) for tap, source, seen in near
            )
        return x
    band = (taps @ _source_matrix(size, radius, border, x.device)).view(-1, size, size)
    block = _BLOCK if size > 64 and x.device.type == "cpu" else size
    across, out = torch.empty_like(x), torch.empty_like(x)
    rows = x.flatten(1, 2)
    for start in range(0, size, block):
        stop = min(start + block, size)
        reach = slice(max(0, start - radius), stop + radius)
        torch.bmm(rows[..., reach], band[:, start:stop, reach].mT, out=across.flatten(1, 2)[..., start:stop])
    for start in range(0, size, block):
        stop = min(start + block, size)
        reach = slice(max(0, start - radius), stop + radius)
        for channel in range(3):
            torch.bmm(band[:, start:stop, reach], across[:, channel, reach], out=out[:, channel, start:stop])
    return out


@cache
def _sources(
    size: int, radius: int, border: Border, device: torch.device
) -> tuple[Int[Tensor, "taps size"], Float[Tensor, "taps size"]]:
    """Return the index of the pixel that each tap (kernel weight) reads for each output pixel, and a factor (1 or 0).

    The factor is 0 for taps outside the image if the border is zeros. If the border is reflected, these taps read the
    mirror image.
    """
    wanted = torch.arange(size)[None] + torch.arange(-radius, radius + 1)[:, None]
    inside = (wanted >= 0) & (wanted < size)
    source = size - 1 - (size - 1 - wanted.abs()).abs()
    seen = inside if border == "zeros" else torch.ones_like(inside)
    return source.clamp(0, size - 1).to(device), seen.float().to(device)


@cache
def _source_matrix(size: int, radius: int, border: Border, device: torch.device) -> Float[Tensor, "taps size*size"]:
    """Return one matrix (output pixel, source pixel) for each tap (kernel weight), flattened.

    Each matrix holds the factor of `_sources` (1 or 0) at the source pixel that the tap reads, and 0 elsewhere.
    """
    source, seen = _sources(size, radius, border, device)
    return (torch.nn.functional.one_hot(source, size).float() * seen[..., None]).flatten(1)
