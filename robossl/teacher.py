"""Teachers and memories: moving averages, queues, centres and banks that provide a loss with targets."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float, Int
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.errors import InputError
from robossl.ranks import all_reduce_mean, gather


def check_momentum(momentum: float, *, paper: float) -> None:
    """Refuse a momentum outside 0 to 1.

    Raises:
        InputError: the momentum is outside 0 to 1.
    """
    if not 0 <= momentum <= 1:
        raise InputError(f"momentum must lie in 0 to 1, got {momentum}; the paper has {paper}")


class Ema(nn.Module):
    """Exponential moving averages of modules: t <- momentum * t + (1 - momentum) * s, for each parameter.

    Buffers do not follow: in training the copies have their own batch-norm statistics, as in BYOL, MoCo and DINO.
    Dropout and drop path are off in the copies. Call the members of `copies` under `torch.no_grad()`.

    Args:
        students: the modules to copy; they are not stored, so that each parameter has one owner.
    """

    def __init__(self, *students: nn.Module) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(student) for student in students).requires_grad_(False)
        # Set the rates to 0: `train()` on a copy would switch the modules on again.
        for module in self.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    @torch.no_grad()
    def update(self, *students: nn.Module, momentum: float) -> None:
        """Move every copy towards its student; students come in the order of the constructor."""
        targets: list[Tensor] = [weight for copied in self.copies for weight in copied.parameters()]
        sources: list[Tensor] = [weight for student in students for weight in student.parameters()]
        assert len(targets) == len(sources)
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)


class Queue(nn.Module):
    """The last `size` rows pushed, as a ring buffer in float32; normalised noise at first (MoCo, arXiv:1911.05722).

    Batches of any size fit, also a last partial one. It is saved with the model, so resume is exact.
    """

    rows: Tensor
    start: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, rows: Float[Tensor, "b d"]) -> None:
        """Overwrite the oldest rows with the rows of all ranks.

        Raises:
            InputError: the global batch is larger than the queue.
        """
        everyone = gather(rows.detach().to(self.rows.dtype))
        self.check_batch(len(everyone))
        places = (self.start + torch.arange(len(everyone), device=rows.device)) % len(self.rows)
        self.rows[places] = everyone
        self.start.copy_((self.start + len(everyone)) % len(self.rows))

    def check_batch(self, size: int) -> None:
        """Refuse a global batch of `size` rows that does not fit.

        Raises:
            InputError: the global batch is larger than the queue.
        """
        if size > len(self.rows):
            raise InputError(
                f"a queue of {len(self.rows)} is smaller than the batch of {size}; "
                "raise method.queue_size or lower train.batch_size"
            )


class Center(nn.Module):
    """A running mean of the teacher's logits, subtracted from them to prevent collapse (arXiv:2104.14294, equation 4).

    Args:
        dim: number of logits.
        momentum: 0.9 in the paper.
    """

    mean: Tensor

    def __init__(self, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "b k"]) -> None:
        """Move towards the mean over the global batch; call it after the loss."""
        batch_mean = all_reduce_mean(logits.detach().to(self.mean.dtype).mean(0))
        self.mean.lerp_(batch_mean, 1 - self.momentum)


class MovingAverageBank(nn.Module):
    """A moving average of every sample's output over its visits: section 5.2 of arXiv:2011.10566.

    eta_x <- momentum * eta_x + (1 - momentum) * z; a sample's first visit sets eta_x to z. Buffers are saved with the
    model, so resume is exact. Every rank applies the updates of all ranks, so all banks stay equal.

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
        """Return the averages updated with these outputs, without storing them; gradients flow to `z`.

        Raises:
            InputError: the bank has no row for an index.
        """
        self.check_sample(int(index.max()))
        mixed = self.momentum * self.average[index] + (1 - self.momentum) * z
        return torch.where(self.visited[index].unsqueeze(1), mixed, z.to(mixed.dtype))

    def check_sample(self, last: int) -> None:
        """Refuse samples up to number `last` if the bank is too small.

        Raises:
            InputError: the bank has fewer rows.
        """
        if last >= len(self.visited):
            raise InputError(
                f"the moving-average bank has {len(self.visited)} rows, got sample {last}; "
                "set bank_size to at least the number of frames in the store"
            )

    @torch.no_grad()
    def store(self, index: Int[Tensor, " b"], average: Float[Tensor, "b d"]) -> None:
        """Store new averages; if a sample occurs twice in the global batch, its first average counts."""
        rows, values = gather(index), gather(average.detach())
        first = (rows.unsqueeze(1) == rows).int().argmax(1)  # equal rows then write equal values, in any order
        self.average[rows] = values[first].to(self.average.dtype)
        self.visited[rows] = True
