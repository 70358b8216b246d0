"""Keys: MoCo's slow copy of an encoder and its head, and the shuffling of batch-norm (section 3.3 of arXiv:1911.05722).

Where statistics are of the sample's own group, a key could be told from the others by them: keys are therefore encoded
in groups other than those of their queries, on one device as on several.
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
    """Whether statistics of a batch are taken anywhere in it."""
    return any(isinstance(each, _BatchNorm) for each in module.modules())


class MomentumKeys(Ema):
    """The copies of an encoder and its head that make unit keys.

    Args:
        encoder: followed by the first copy.
        head: followed by the second; it takes the pooled feature.
        shuffled: whether the samples are shuffled over all ranks before they are encoded.
    """

    draws: Tensor

    def __init__(self, encoder: Encoder, head: nn.Module, *, shuffled: bool) -> None:
        super().__init__(encoder, head)
        self.shuffled = shuffled
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))  # permutations drawn; the next one's seed

    @torch.no_grad()
    def forward(self, pixels: Float[Tensor, "b 3 h w"], *, number: int = 0) -> Float[Tensor, "b *s d"]:
        """Keys in the order of the pixels, whatever order they are encoded in.

        Args:
            pixels: one view of each sample.
            number: which of the batch's views this is; each is shuffled in an order of its own.
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
        """Let the next step shuffle in other orders than this one, which had so many views."""
        if self.shuffled:
            self.draws.add_(num_views)

    def _permutation(self, n: int, number: int) -> Int[Tensor, " n"]:
        """The same on all ranks, in all micro-batches of a step and after a resume."""
        return torch.randperm(n, generator=torch.Generator().manual_seed(int(self.draws) + number))
