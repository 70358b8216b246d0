"""Bring two feature maps to one grid."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def same_cells(
    mine: Float[Tensor, "b c h w"], theirs: Float[Tensor, "b d k l"]
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n d"]]:
    """Average the finer of two maps down to the grid of the coarser one, on each axis; return a row for each cell."""
    height, width = (min(mine.shape[axis], theirs.shape[axis]) for axis in (2, 3))
    return _cells(mine, height, width), _cells(theirs, height, width)


def _cells(dense: Float[Tensor, "b c h w"], height: int, width: int) -> Float[Tensor, "n c"]:
    # Matrix products, because the backward pass of torch's own resize is not deterministic on CUDA.
    if dense.shape[2:] != (height, width):
        rows, columns = _average(dense.shape[2], height, dense), _average(dense.shape[3], width, dense)
        dense = rows @ dense @ columns.T
    return dense.permute(0, 2, 3, 1).flatten(0, 2)


def _average(source: int, target: int, like: Tensor) -> Float[Tensor, "target source"]:
    return F.adaptive_avg_pool1d(torch.eye(source, device=like.device, dtype=like.dtype)[None], target)[0].T
