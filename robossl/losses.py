"""Losses as pure functions of tensors; each docstring says how the loss spreads over ranks.

All are computed in float32 or more, under autocast too: bf16 has steps of 1/16 at a logit of 14.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert to float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
    """Normalise vectors along the last dimension, in float32 or more."""
    return F.normalize(full_precision(x), dim=-1)


def negative_cosine(p: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return SimSiam's D(p, z), equation 1 of arXiv:2011.10566: minus the cosine, mean over the batch.

    Over ranks: the mean of the ranks' values is the global value; nothing is gathered.
    """
    return -(unit(p) * unit(z)).sum(dim=1).mean()


def softmax_cross_entropy(p: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return -softmax(z) . log softmax(p) over channels, mean over the batch: section 4.5 of arXiv:2011.10566.

    Over ranks: the mean of the ranks' values is the global value; nothing is gathered.
    """
    target = full_precision(z).softmax(dim=1)
    return -(target * full_precision(p).log_softmax(dim=1)).sum(dim=1).mean()


def nt_xent(
    views: tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]],
    *,
    everyone: tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]],
    first: int = 0,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return NT-Xent, equation 1 of arXiv:2002.05709, mean over this rank's 2b anchors.

    An anchor's positive is the other view of its sample; the 2n - 2 other embeddings of the global batch are negatives.
    Over ranks: gather both views with gradients and pass this rank's `first`; the mean of the ranks' values is then the
    global value. In one process `everyone` is `views`.

    Args:
        views: this rank's embeddings of the two views, not normalised.
        everyone: the embeddings of the global batch, in rank order.
        first: index of this rank's first sample in the global batch.
        temperature: tau of the paper.
    """
    b, n = len(views[0]), len(everyone[0])
    rows = torch.arange(b, device=views[0].device) + first
    with torch.autocast(views[0].device.type, enabled=False):
        logits = unit(torch.cat(views)) @ unit(torch.cat(everyone)).T / temperature
    oneself = torch.cat([rows, rows + n]).unsqueeze(1)
    positive = torch.cat([rows + n, rows])
    return F.cross_entropy(logits.scatter(1, oneself, -torch.inf), positive)
