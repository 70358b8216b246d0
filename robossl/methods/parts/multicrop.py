"""Multi-crop: encode many views of several sizes (section 3.2 of SwAV, arXiv:2006.09882)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jaxtyping import Float
from torch import Tensor, cat

from robossl.encoders.encoder import Encoder, Features
from robossl.views import View


def encode_crops(encoder: Encoder, views: Sequence[View]) -> list[Features]:
    """Encode consecutive views (crops) of the same size as one batch; return the features of each such batch.

    Rows are ordered by view, then by sample. Batch-norm computes its statistics over all views in such a batch, as in
    the official code of SwAV and DINO. SwAV's code synchronises the statistics over 8 GPUs, but here they are those of
    the global batch.
    """
    runs = [list(alike) for _, alike in groupby(views, key=lambda view: view.pixels.shape[-2:])]
    return [encoder(cat([view.pixels for view in run])) for run in runs]


def pooled_crops(encoder: Encoder, views: Sequence[View]) -> Float[Tensor, "v*b d"]:
    """Return the pooled features of all views, ordered by view, then by sample."""
    return cat([features.pooled for features in encode_crops(encoder, views)])


def cls_crops(encoder: Encoder, views: Sequence[View]) -> Float[Tensor, "v*b d"]:
    """Return the class tokens of all views, ordered by view, then by sample.

    If the backbone has no class token, return the pooled features instead.
    """
    found = encode_crops(encoder, views)
    return cat([features.pooled if features.cls is None else features.cls for features in found])
