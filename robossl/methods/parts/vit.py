"""Set up timm's vision transformers as MoCo v3 (arXiv:2104.02057) and DINO (arXiv:2104.14294) do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.encoders.encoder import Encoder
from robossl.errors import InputError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def transformer_of(encoder: Encoder) -> VisionTransformer | None:
    """Return the encoder's backbone if it is timm's vision transformer, else None."""
    from timm.models.vision_transformer import VisionTransformer

    backbone: nn.Module = encoder.backbone
    return backbone if isinstance(backbone, VisionTransformer) else None


def require_transformer(encoder: Encoder, *, because: str) -> VisionTransformer:
    """Return the encoder's vision transformer.

    Raises:
        InputError: the backbone is not a vision transformer; the message names `because` as the reason.
    """
    transformer = transformer_of(encoder)
    if transformer is None:
        raise InputError(
            f"{because} needs a vision transformer, got {encoder.config.backbone}; choose one "
            "(vit_small_patch16_224) or leave that setting out"
        )
    return transformer


def freeze_patch_projection(transformer: VisionTransformer) -> None:
    """Freeze the first layer at its initial weights; its gradients make training unstable (MoCo v3, section 4.1)."""
    transformer.patch_embed.proj.requires_grad_(False)


@torch.no_grad()
def fix_positions(transformer: VisionTransformer) -> None:
    """Set the position embedding to sines and cosines, with zeros for a class token, and freeze it.

    Raises:
        InputError: the transformer has no position embedding, or its width is no multiple of 4.
    """
    positions = transformer.pos_embed
    if positions is None or transformer.embed_dim % 4:
        raise InputError(
            f"fixed positions need a position embedding of a width that divides by 4, got {transformer.embed_dim}; "
            "set method.fixed_positions to false"
        )
    grid = sines_and_cosines(*transformer.patch_embed.grid_size, dim=transformer.embed_dim)
    positions.zero_()
    positions[:, -len(grid) :] = grid.to(positions.dtype)
    positions.requires_grad_(False)


def sines_and_cosines(height: int, width: int, *, dim: int) -> Float[Tensor, "n dim"]:
    """Return a position embedding for each cell of a grid, row by row: sines and cosines of x, then of y.

    The sines and cosines have dim / 4 wavelengths, from 2 pi to 20000 pi cells.
    """
    frequency = 10000 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [place.flatten().unsqueeze(1) * frequency for place in (x, y)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


@torch.no_grad()
def draw_xavier(transformer: VisionTransformer) -> None:
    """Draw initial weights as MoCo v3's official code does: Xavier uniform, with separate query, key and value."""
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            fan_out = module.out_features // 3 if name.endswith("qkv") else module.out_features
            _uniform(module, fan_in=module.in_features, fan_out=fan_out)
    projection = transformer.patch_embed.proj
    _uniform(projection, fan_in=projection.weight[0].numel(), fan_out=transformer.embed_dim)
    if transformer.cls_token is not None:
        nn.init.normal_(transformer.cls_token, std=1e-6)


@torch.no_grad()
def start_class_token(transformer: VisionTransformer, *, std: float) -> None:
    """Draw the initial class token with the standard deviation `std`. timm uses 1e-6, and DINO's official code 0.02."""
    if transformer.cls_token is not None:
        nn.init.trunc_normal_(transformer.cls_token, std=std)


def plain_bicubic(source: int, target: int) -> Float[Tensor, "target source"]:
    """Return the matrix with which DINO resizes position embeddings along one axis.

    The resize is bicubic, not antialiased, at scale (target + 0.1) / source. From 14 x 14 to 6 x 6 patches, its output
    varies more than twice as much as that of an antialiased resize.
    """
    scale = ((target + 0.1) / source, 1.0)
    return F.interpolate(torch.eye(source)[None, None], scale_factor=scale, mode="bicubic")[0, 0]


def _uniform(module: nn.Linear | nn.Conv2d, *, fan_in: int, fan_out: int) -> None:
    bound = math.sqrt(6 / (fan_in + fan_out))
    nn.init.uniform_(module.weight, -bound, bound)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
