"""Teachers: where the targets of a loss come from when it is not the network of this moment."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from robossl.errors import InputError
from robossl.ranks import gather


class MovingAverageBank(nn.Module):
    """A moving average of every sample's output over its visits: section 5.2 of arXiv:2011.10566.

    eta_x <- momentum * eta_x + (1 - momentum) * z, where a sample's first visit sets eta_x to z. Buffers are
    saved with the model, so a resumed run goes on exactly; over ranks every rank applies everyone's updates
    and all banks stay equal.

    Args:
        num_samples: one row for each sample, float32: num_samples * dim * 4 bytes.
        dim: width of the outputs.
        momentum: 0.8 in the paper.
    """

    average: Tensor
    visited: Tensor

    def __init__(self, num_samples: int, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(num_samples, dim))
        self.register_buffer("visited", torch.zeros(num_samples, dtype=torch.bool))

    def forward(self, index: Int[Tensor, " b"], z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The averages as they will be with these outputs; nothing is stored, gradients flow to `z`.

        Raises:
            InputError: an index that the bank has no row for.
        """
        if int(index.max()) >= len(self.visited):
            raise InputError(
                f"the moving-average bank has {len(self.visited)} rows, got sample {int(index.max())}; "
                "set bank_size to at least the number of frames in the store"
            )
        mixed = self.momentum * self.average[index] + (1 - self.momentum) * z
        return torch.where(self.visited[index].unsqueeze(1), mixed, z.to(mixed.dtype))

    @torch.no_grad()
    def store(self, index: Int[Tensor, " b"], average: Float[Tensor, "b d"]) -> None:
        """Keep new averages; where a sample is twice in the global batch, its first one is kept."""
        rows, values = gather(index), gather(average.detach())
        first = (rows.unsqueeze(1) == rows).int().argmax(1)  # so that equal rows write equal values, in any order
        self.average[rows] = values[first].to(self.average.dtype)
        self.visited[rows] = True
