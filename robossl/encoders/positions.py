"""Positions: find the grid that a backbone's patch tokens form, and resize position embeddings to another grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from robossl.errors import InputError

# Largest number of tokens before the patches that have a position embedding: a class token and a distillation token.
MAX_PREFIX = 2

PositionMatrix = Callable[[int, int], Tensor]
"""Returns the matrix (target, source) that resizes learned positions along one axis."""


def token_grid(num_tokens: int, hw: tuple[int, int]) -> tuple[int, int] | None:
    """Return the rows and columns of the grid that patch tokens form on a frame of size `hw` (height, width).

    The cells of the grid are assumed to be square. Return None if the tokens cannot form such a grid.
    """
    if num_tokens < 1:
        return None
    cell = math.sqrt(hw[0] * hw[1] / num_tokens)
    # The frame's size in cells need not be a whole number, because a backbone may cut or pad the border.
    height, width = hw[0] / cell, hw[1] / cell
    rows = [rows for rows in range(max(1, math.ceil(height - 1)), int(height + 1) + 1) if num_tokens % rows == 0]
    grids = [(row, num_tokens // row) for row in rows if abs(num_tokens // row - width) < 1]
    return min(grids, key=lambda grid: abs(grid[0] - height) + abs(grid[1] - width), default=None)


def fit_positions(
    positions: Float[Tensor, "1 n d"], backbone: Any, *, source_hw: tuple[int, int] | None, origin: str
) -> Float[Tensor, "1 m d"]:
    """Resize a checkpoint's position embeddings to the backbone's grid of patches.

    Embeddings of tokens before the patches, such as the class token, stay as they are.

    Args:
        positions: position embeddings of the checkpoint.
        backbone: the model. If its `pos_embed` is None or it has no `patch_embed.grid_size`, the positions are returned
            unchanged.
        source_hw: the input size that the checkpoint was trained at; None if it is unknown.
        origin: name of the checkpoint, for messages.

    Raises:
        InputError: the grid of the checkpoint's positions is unknown or contradicts `source_hw`.
    """
    from timm.layers.patch_embed import PatchEmbed
    from timm.layers.pos_embed import resample_abs_pos_embed

    target, grid = backbone.pos_embed, getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if grid is None or target is None or positions.ndim != 3 or target.ndim != 3:
        return positions
    num_prefix = target.shape[1] - grid[0] * grid[1]
    num_patches = positions.shape[1] - num_prefix
    if num_prefix < 0 or num_patches < 1:
        return positions
    _check_prefix(num_patches, num_prefix, grid=(grid[0], grid[1]), source_hw=source_hw, origin=origin)
    patch_hw = backbone.patch_embed.patch_size if type(backbone.patch_embed) is PatchEmbed else None
    source = _source_grid(num_patches, (grid[0], grid[1]), source_hw=source_hw, patch_hw=patch_hw, origin=origin)
    out: Tensor = resample_abs_pos_embed(positions, list(grid), old_size=list(source), num_prefix_tokens=num_prefix)
    return out


def _check_prefix(
    num_patches: int, num_prefix: int, *, grid: tuple[int, int], source_hw: tuple[int, int] | None, origin: str
) -> None:
    """Refuse a checkpoint if it and the backbone seem to have different numbers of tokens before the patches.

    They seem different if the positions that remain after removing the backbone's number of such tokens form no square
    grid, but those that remain after removing another number (0 to `MAX_PREFIX`) do. If `source_hw` is known, or the
    remaining positions have the size of the backbone's `grid`, accept the checkpoint.
    """
    if source_hw is not None or num_patches == grid[0] * grid[1] or math.isqrt(num_patches) ** 2 == num_patches:
        return
    num_tokens = num_patches + num_prefix
    for other in range(MAX_PREFIX + 1):
        side = math.isqrt(max(0, num_tokens - other))
        if side > 1 and side * side == num_tokens - other:
            raise InputError(
                f"{origin} holds {num_tokens} positions: {other} tokens before {side}x{side} patches, where this "
                f"backbone has {num_prefix}; set encoder.backbone to the model these weights belong to, or "
                "encoder.init_hw, [HEIGHT, WIDTH], to the input size that it was trained at if that was not square"
            )


def _source_grid(
    num_patches: int,
    target: tuple[int, int],
    *,
    source_hw: tuple[int, int] | None,
    patch_hw: tuple[int, int] | None,
    origin: str,
) -> tuple[int, int]:
    """Return the grid of patches that a checkpoint was trained on.

    Without `source_hw`, the grid is assumed to be square, as in most checkpoints. If `num_patches` makes no square, but
    fits the backbone's grid `target`, that grid is assumed.

    Raises:
        InputError: the grid contradicts `source_hw`, or it cannot be determined.
    """
    holds = f"{origin} holds positions of {num_patches} patches"
    if source_hw is not None:
        grid = token_grid(num_patches, source_hw)
        if grid is not None and patch_hw is not None:
            left = (abs(size / patch - cells) for size, patch, cells in zip(source_hw, patch_hw, grid, strict=True))
            # A backbone may cut or pad a border of the frame only if this border is narrower than a patch.
            grid = grid if max(left) < 1 else None
        if grid is None:
            raise InputError(
                f"{holds}, which frames of {source_hw[0]}x{source_hw[1]} are not cut into; set encoder.init_hw to the "
                "input size that it was trained at"
            )
        return grid
    side, same_number = math.isqrt(num_patches), num_patches == target[0] * target[1]
    if side * side == num_patches and (not same_number or target == (side, side)):
        return (side, side)
    if same_number and side * side != num_patches:
        return target
    shape = f"either {side}x{side} or {target[0]}x{target[1]}" if same_number else "which make no square"
    raise InputError(f"{holds}, {shape}; set encoder.init_hw to the input size that it was trained at, [HEIGHT, WIDTH]")


class ResizeByMatrix(TorchFunctionMode):
    """A context in which `F.interpolate` resizes learned position embeddings by matrix products.

    This is needed on CUDA, where the backward pass of torch's antialiased resize is not deterministic.
    """

    def __init__(self, matrix: PositionMatrix) -> None:
        super().__init__()
        self.matrix = matrix

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.interpolate or kwargs.get("mode") != "bicubic" or not kwargs.get("antialias"):
            return func(*args, **kwargs)
        (height, width), positions = kwargs["size"], args[0]
        with positions.device:  # a matrix that is made on the CPU would be copied, and the program would wait for that
            rows = self.matrix(positions.shape[-2], height).to(positions)
            columns = self.matrix(positions.shape[-1], width).to(positions)
        with torch.autocast(positions.device.type, enabled=False):
            return rows @ positions @ columns.T


def resize_matrix(source: int, target: int, *, mode: Literal["bilinear", "bicubic"]) -> Float[Tensor, "target source"]:
    """Return the matrix that resizes one axis with antialiasing; it is the resized identity matrix."""
    identity = torch.eye(source)[None, None]
    return F.interpolate(identity, (target, source), mode=mode, antialias=True)[0, 0]
