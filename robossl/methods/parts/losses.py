"""Losses as pure functions of tensors. Each docstring says how the ranks' values give the loss of the global batch.

All losses are computed in float32 or float64, also under autocast. bf16 would be too coarse, because its steps are 1/16
near a logit of 14.
"""

from __future__ import annotations

import contextlib

import torch
from jaxtyping import Float
from torch import Tensor
from torch.amp import is_autocast_available
from torch.nn import functional as F


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context without autocast on the device of a tensor. A device that has no autocast (meta) needs none."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if is_autocast_available(kind) else contextlib.nullcontext()


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert a tensor to float32, but leave float64 as it is."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Float[Tensor, "*lead d"]) -> Float[Tensor, "*lead d"]:
    """Scale vectors along the last dimension to norm 1, in float32 or float64."""
    return F.normalize(full_precision(x), dim=-1)


def negative_cosine(p: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return SimSiam's D(p, z): minus the cosine of p and z, averaged over the batch (arXiv:2011.10566, equation 1).

    The mean of the ranks' values is the loss of the global batch, so no embeddings are gathered.
    """
    return -(unit(p) * unit(z)).sum(dim=1).mean()


def softmax_cross_entropy(p: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the cross-entropy of softmax(p) with the target softmax(z), averaged over the batch.

    The softmax is over channels (arXiv:2011.10566, section 4.5).

    The mean of the ranks' values is the loss of the global batch, so no embeddings are gathered.
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
    """Return the NT-Xent loss (arXiv:2002.05709, equation 1), averaged over this rank's 2b anchors.

    An anchor's positive is the second view (augmented frame) of the anchor's sample. Its negatives are the remaining
    2n - 2 embeddings of the global batch. With several ranks, gather both views with gradients as `everyone`, and pass
    this rank's `first`. The mean of the ranks' values is then the loss of the global batch. In a single process,
    `everyone` is `views`.

    Args:
        views: this rank's embeddings of the two views, not normalised.
        everyone: all ranks' embeddings of the two views, in rank order, not normalised.
        first: index of this rank's first sample in the global batch.
        temperature: tau of the paper.
    """
    b, n = len(views[0]), len(everyone[0])
    rows = torch.arange(b, device=views[0].device) + first
    with without_autocast(views[0]):
        logits = unit(torch.cat(views)) @ unit(torch.cat(everyone)).T / temperature
    oneself = torch.cat([rows, rows + n]).unsqueeze(1)
    positive = torch.cat([rows + n, rows])
    return F.cross_entropy(logits.scatter(1, oneself, -torch.inf), positive)


def relation_loss(
    p: Float[Tensor, "b d"], t: Float[Tensor, "b d"], queue: Float[Tensor, "n d"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return KL(teacher || student) of the similarities to the sample's own target and to a queue of targets.

    Source: arXiv:2101.04731, equations 1 to 3, with one temperature for both; averaged over the batch. The mean of the
    ranks' values is the loss of the global batch. All ranks have the same queue, of unit vectors.
    """
    p, t = unit(p), unit(t)
    with without_autocast(p):
        queue = queue.to(t.dtype)
        of_student = torch.cat([(p * t).sum(1, keepdim=True), p @ queue.T], dim=1) / temperature
        of_teacher = torch.cat([(t * t).sum(1, keepdim=True), t @ queue.T], dim=1) / temperature
    target = of_teacher.log_softmax(1)
    return F.kl_div(of_student.log_softmax(1), target, reduction="batchmean", log_target=True)
