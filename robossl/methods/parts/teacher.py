"""Teachers and memories of a method: moving averages, queues, centres and banks, which a loss uses for its targets."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common.ranks import all_reduce_mean, gather
from robossl.errors import InputError


def check_momentum(momentum: float, *, paper: float) -> None:
    """Refuse a momentum outside 0 to 1; the message gives the paper's value, `paper`.

    Raises:
        InputError: the momentum is outside 0 to 1.
    """
    if not 0 <= momentum <= 1:
        raise InputError(f"momentum must lie in 0 to 1, got {momentum}; the paper has {paper}")


class HostCounts(nn.Module):
    """Keeps counts, which are buffers, on the host too, so that the program does not wait for a GPU to read one."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, int] = {}

    def count(self, name: str) -> int:
        """Return the count in the buffer `name`. The first call, and the first after a load, waits for the GPU."""
        if name not in self._known:
            self._known[name] = int(getattr(self, name))
        return self._known[name]

    def add_count(self, name: str, number: int) -> None:
        """Add a number to the count in the buffer `name`."""
        self._known[name] = self.count(name) + number
        getattr(self, name).add_(number)

    def _load_from_state_dict(self, *args: Any) -> None:
        self._known.clear()
        super()._load_from_state_dict(*args)


class Ema(nn.Module):
    """Copies (teachers) of modules (students); their weights are exponential moving averages of the students' weights.

    An update of a teacher's parameter t with its student's parameter s is t <- momentum * t + (1 - momentum) * s.
    Buffers are not averaged: in training, the copies have their own batch-norm statistics, as in BYOL, MoCo and DINO.
    Dropout and drop path are off in the copies. Call the members of `copies` under `torch.no_grad()`.

    Args:
        students: the modules to copy. They are not stored here, so that each parameter belongs to one module only.
    """

    def __init__(self, *students: nn.Module) -> None:
        from timm.layers.drop import DropPath

        super().__init__()
        self.copies = nn.ModuleList(copy.deepcopy(student) for student in students).requires_grad_(False)
        # Set the dropout rates to 0. `eval()` would not last, because `train()` on a copy switches dropout on again.
        for module in self.modules():
            if isinstance(module, DropPath):
                module.drop_prob = 0.0
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    @torch.no_grad()
    def update(self, *students: nn.Module, momentum: float) -> None:
        """Move every copy's weights towards its student's weights; pass the students in the constructor's order."""
        targets: list[Tensor] = [weight for copied in self.copies for weight in copied.parameters()]
        sources: list[Tensor] = [weight for student in students for weight in student.parameters()]
        assert len(targets) == len(sources)
        torch._foreach_lerp_(targets, sources, 1.0 - momentum)


class Queue(nn.Module):
    """A ring buffer of the last `size` rows that were pushed, in float32 (MoCo, arXiv:1911.05722).

    It starts with random rows of norm 1. The number of rows in a push may vary, up to `size`. The queue is saved with
    the model, so a resumed run goes on exactly.
    """

    rows: Tensor
    start: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("start", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, rows: Float[Tensor, "b d"]) -> None:
        """Overwrite the oldest rows of the queue with the new rows of all ranks.

        Raises:
            InputError: the global batch is larger than the queue.
        """
        everyone = gather(rows.detach().to(self.rows.dtype))
        self.check_batch(len(everyone))
        places = (self.start + torch.arange(len(everyone), device=rows.device)) % len(self.rows)
        self.rows[places] = everyone
        self.start.copy_((self.start + len(everyone)) % len(self.rows))

    def check_batch(self, size: int) -> None:
        """Refuse a global batch of `size` rows if it does not fit into the queue.

        Raises:
            InputError: the global batch is larger than the queue.
        """
        if size > len(self.rows):
            raise InputError(
                f"a queue of {len(self.rows)} is smaller than the batch of {size}; "
                "raise method.queue_size or lower train.batch_size"
            )


class Center(nn.Module):
    """A running mean of the teacher's logits. The loss subtracts it from the logits to prevent collapse.

    Source: arXiv:2104.14294, equation 4.

    Args:
        dim: number of logits.
        momentum: weight of the old mean in an update; 0.9 in the paper.
    """

    mean: Tensor

    def __init__(self, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(dim))

    @torch.no_grad()
    def update(self, logits: Float[Tensor, "b k"]) -> None:
        """Move the centre towards the mean of the logits over the global batch; call this after computing the loss."""
        batch_mean = all_reduce_mean(logits.detach().to(self.mean.dtype).mean(0))
        self.mean.lerp_(batch_mean, 1 - self.momentum)


class MovingAverageBank(nn.Module):
    """A moving average, for every sample, of its outputs in past epochs (section 5.2 of arXiv:2011.10566).

    If sample x has the output z, its average becomes eta_x <- momentum * eta_x + (1 - momentum) * z; the first output
    sets eta_x to z. Buffers are saved with the model, so a resumed run goes on exactly. Every rank applies the updates
    of all ranks, so all ranks have equal banks.

    Args:
        num_samples: number of samples. Each has a row in float32, so the bank takes num_samples * dim * 4 bytes.
        dim: width of the outputs.
        momentum: weight of the old average in an update; 0.8 in the paper.
    """

    average: Tensor
    visited: Tensor

    def __init__(self, num_samples: int, dim: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("average", torch.zeros(num_samples, dim))
        self.register_buffer("visited", torch.zeros(num_samples, dtype=torch.bool))

    def forward(self, index: Int[Tensor, " b"], z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Return the samples' averages updated with the outputs `z`, but do not store them; gradients flow to `z`.

        Raises:
            InputError: the bank has no row for an index; this is checked on a CPU only.
        """
        if index.device.type == "cpu":  # on a GPU, the program would wait for it; a run checks this before it starts
            self.check_sample(int(index.max()))
        mixed = self.momentum * self.average[index] + (1 - self.momentum) * z
        return torch.where(self.visited[index].unsqueeze(1), mixed, z.to(mixed.dtype))

    def check_sample(self, last: int) -> None:
        """Refuse sample number `last`, the largest in use, if the bank has no row for it.

        Raises:
            InputError: the bank has no row `last`.
        """
        if last >= len(self.visited):
            raise InputError(
                f"the moving-average bank has {len(self.visited)} rows, got sample {last}; "
                "set bank_size to at least the number of frames in the store"
            )

    @torch.no_grad()
    def store(self, index: Int[Tensor, " b"], average: Float[Tensor, "b d"]) -> None:
        """Store new averages of samples; if a sample occurs twice in the global batch, its first average is stored."""
        rows, values = gather(index), gather(average.detach())
        # `first` makes all writes to a row equal, so their order does not matter.
        first = (rows.unsqueeze(1) == rows).int().argmax(1)
        self.average[rows] = values[first].to(self.average.dtype)
        self.visited[rows] = True
