"""Momentum keys: embeddings by MoCo's slow copy of an encoder and its head, with shuffled batch-norm.

Source: arXiv:1911.05722, section 3.3. A query is the embedding of one view (augmented frame) of a sample, and its key
is the embedding of another view. Batch-norm computes its statistics over groups of samples. If a query and its key were
in the same group, these statistics would reveal which key belongs to the query. Samples are therefore shuffled between
the groups before their keys are computed. A single device has several groups too (`batch_norm_groups` of the method).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robossl.common import ranks
from robossl.encoders.encoder import Encoder
from robossl.methods.parts.losses import unit
from robossl.methods.parts.teacher import Ema, HostCounts


def has_batch_norm(module: nn.Module) -> bool:
    """Check whether a module contains batch-norm."""
    return any(isinstance(each, _BatchNorm) for each in module.modules())


class MomentumKeys(Ema, HostCounts):
    """Moving-average copies of an encoder and its head. They compute keys, which are vectors of norm 1.

    Args:
        encoder: the module that the first copy follows.
        head: the module that the second copy follows; its input is the pooled feature.
        shuffled: whether samples are shuffled over all ranks before they are encoded.
    """

    draws: Tensor

    def __init__(self, encoder: Encoder, head: nn.Module, *, shuffled: bool) -> None:
        super().__init__(encoder, head)
        self.shuffled = shuffled
        # Number of shuffles so far. The next shuffle uses this number as its seed.
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "b 3 h w"], *, number: int = 0) -> Float[Tensor, "b *s d"]:
        """Compute the keys of one view, in the order of the samples in `pixels`.

        Args:
            pixels: the view's pixels, one image for each sample.
            number: index of the view in the batch; each view gets a different shuffle.
        """
        encoder, head = self.copies
        if not self.shuffled:
            return unit(head(encoder(pixels).pooled))
        b, first = len(pixels), ranks.rank() * len(pixels)
        order = self._permutation(b * ranks.world_size(), number).to(pixels.device, non_blocking=True)
        shuffled = ranks.gather(pixels)[order[first : first + b]]
        keys = ranks.gather(unit(head(encoder(shuffled).pooled)))
        return keys[order.argsort()[first : first + b]]

    def next_shuffle(self, num_views: int = 1) -> None:
        """Make the next step draw new shuffles; `num_views` is the number of views of this step."""
        if self.shuffled:
            self.add_count("draws", num_views)

    def _permutation(self, n: int, number: int) -> Int[Tensor, " n"]:
        """Draw a permutation of `n` samples for view `number`.

        All ranks and all micro-batches of a step get the same permutation, also after a resume.
        """
        return torch.randperm(n, generator=torch.Generator().manual_seed(self.count("draws") + number))
