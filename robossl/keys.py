"""Momentum keys: MoCo's slow copy of an encoder and its head, and shuffled batch-norm (arXiv:1911.05722, section 3.3).

If batch-norm took a key's statistics from the group of its query, they would reveal the key. Keys are therefore encoded
in other groups than their queries, on one device as on several.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robossl import ranks
from robossl.encoder import Encoder
from robossl.losses import unit
from robossl.teacher import Ema


def has_batch_norm(module: nn.Module) -> bool:
    """Check whether a module contains batch-norm."""
    return any(isinstance(each, _BatchNorm) for each in module.modules())


class MomentumKeys(Ema):
    """Copies of an encoder and its head that make unit keys.

    Args:
        encoder: the first copy follows it.
        head: the second copy follows it; its input is the pooled feature.
        shuffled: whether samples are shuffled over all ranks before they are encoded.
    """

    draws: Tensor

    def __init__(self, encoder: Encoder, head: nn.Module, *, shuffled: bool) -> None:
        super().__init__(encoder, head)
        self.shuffled = shuffled
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))  # permutations drawn, the seed of the next

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "b 3 h w"], *, number: int = 0) -> Float[Tensor, "b *s d"]:
        """Return the keys in the order of the pixels.

        Args:
            pixels: one view of each sample.
            number: number of the view in the batch; every view gets another shuffle.
        """
        encoder, head = self.copies
        if not self.shuffled:
            return unit(head(encoder(pixels).pooled))
        b, first = len(pixels), ranks.rank() * len(pixels)
        order = self._permutation(b * ranks.world_size(), number).to(pixels.device)
        shuffled = ranks.gather(pixels)[order[first : first + b]]
        keys = ranks.gather(unit(head(encoder(shuffled).pooled)))
        return keys[order.argsort()[first : first + b]]

    def next_shuffle(self, num_views: int = 1) -> None:
        """Change the shuffles for the next step; this step had `num_views` views."""
        if self.shuffled:
            self.draws.add_(num_views)

    def _permutation(self, n: int, number: int) -> Int[Tensor, " n"]:
        """Draw a permutation, the same on all ranks, in all micro-batches of a step and after a resume."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(int(self.draws) + number))
