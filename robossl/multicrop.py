"""Multi-crop: encode many views of several sizes (section 3.2 of SwAV, arXiv:2006.09882)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jaxtyping import Float
from torch import Tensor, cat

from robossl.encoder import Encoder, Features
from robossl.views import View


def encode_crops(encoder: Encoder, views: Sequence[View]) -> list[Features]:
    """Encode each run of views of one size as one batch, view after view.

    Batch-norm therefore takes its statistics over the views of one size, as in the official code of SwAV and DINO.
    SwAV's code synchronises them over 8 GPUs; here they are those of the global batch.
    """
    runs = [list(alike) for _, alike in groupby(views, key=lambda view: view.pixels.shape[-2:])]
    return [encoder(cat([view.pixels for view in run])) for run in runs]


def pooled_crops(encoder: Encoder, views: Sequence[View]) -> Float[Tensor, "v*b d"]:
    """Return the pooled feature of every view, view after view."""
    return cat([features.pooled for features in encode_crops(encoder, views)])


def cls_crops(encoder: Encoder, views: Sequence[View]) -> Float[Tensor, "v*b d"]:
    """Return the class token of every view, view after view; the pooled feature if the backbone has no class token."""
    found = encode_crops(encoder, views)
    return cat([features.pooled if features.cls is None else features.cls for features in found])
