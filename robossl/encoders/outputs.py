"""The named outputs of an encoder: pooled feature, class token, dense feature map, keypoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Features(NamedTuple):
    """Features of a batch of frames."""

    pooled: Float[Tensor, "b d"]  # mean over positions: global average (ResNet), mean of patch tokens (ViT)
    dense: Float[Tensor, "b c h w"]  # last feature map; for a ViT, the grid of its patch tokens after the final norm
    cls: Float[Tensor, "b d"] | None  # class token after the final norm; None if there is no class token


def spatial_softmax(dense: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c 2"]:
    """Return a keypoint (x, y) for each channel: the mean of the cells' centres, weighted by the channel's softmax.

    The feature map spans [-1, 1] on both axes, with x to the right and y down (arXiv:1509.06113).
    """
    b, c, h, w = dense.shape
    weight = dense.flatten(2).float().softmax(-1).view(b, c, h, w)
    x = (2 * torch.arange(w, device=dense.device) + 1) / w - 1
    y = (2 * torch.arange(h, device=dense.device) + 1) / h - 1
    return torch.stack([(weight.sum(2) * x).sum(-1), (weight.sum(3) * y).sum(-1)], dim=-1)


def named_outputs(features: Features) -> dict[str, Tensor]:
    """Return fp32 features by output name, in this order: pooled, cls if there is a class token, dense, keypoints."""
    dense = features.dense.float()
    cls = {} if features.cls is None else {"cls": features.cls.float()}
    return {"pooled": features.pooled.float(), **cls, "dense": dense, "keypoints": spatial_softmax(dense)}
