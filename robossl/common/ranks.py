"""Functions for ranks, which are processes that train together. They call torch.distributed if there are several ranks.

`gather` and `all_reduce_mean` pass gradients to every rank. So training gives the same gradients as a single process
would on the joined batch. This needs three things: the mean of the ranks' losses is the loss of the joined batch, the
gradients are averaged over ranks (DDP does that), and all ranks hold the same number of samples. Batch-norm over ranks
is in batch_norm.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ranks:
    """The rank and device of this process among the processes that torchrun started."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    @classmethod
    def join(cls, device: str) -> Ranks:
        """Join the process group that torchrun's environment variables describe; without them, run alone.

        Args:
            device: "cpu" or "cuda". Tensors on the CPU go through gloo, tensors on GPUs (one per process) through nccl.
        """
        size, local_rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
        on_gpu = device.startswith("cuda")
        own = torch.device("cuda", local_rank) if on_gpu and size > 1 else torch.device(device)
        if size > 1:
            if on_gpu:
                torch.cuda.set_device(own)
            backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
            dist.init_process_group(backend, device_id=own if on_gpu else None)
        return cls(rank=rank(), world_size=world_size(), device=own)

    def close(self) -> None:
        """Leave the process group; call this at the end of the process."""
        if _joined():
            dist.destroy_process_group()


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """Return the rank (number) of this process: 0 for the main process, and 0 if the process runs alone."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _joined() else 1


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank's loss depends on this rank's slice, so sum the ranks' gradients first (lightly #1528).
        return all_reduce_sum(grad).chunk(world_size())[rank()]


class _AllReduceMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return all_reduce_sum(x) / world_size()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every rank's loss depends on the mean, so sum the ranks' gradients.
        return all_reduce_sum(grad) / world_size()


def all_reduce_sum(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """Return the sum of a tensor over all ranks (processes). Gradients do not flow back through it."""
    if world_size() == 1:
        return x
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def gather(x: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "n ..."]:
    """Join the tensors of all ranks (processes) along the batch axis. Gradients flow back to every rank."""
    if world_size() == 1:
        return x
    joined: Tensor = _Gather.apply(x)
    return joined


def all_reduce_mean(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the mean of a tensor over all ranks (processes). Gradients flow back to every rank."""
    if world_size() == 1:
        return x
    mean: Tensor = _AllReduceMean.apply(x)
    return mean


def barrier() -> None:
    """Wait until every rank (process) has called this function."""
    any_rank(False)


def any_rank(flag: bool) -> bool:
    """Return whether the flag is true on at least one rank (process). Every rank gets the same answer."""
    if world_size() == 1:
        return flag
    raised = torch.tensor(int(flag))
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def broadcast(values: Sequence[float]) -> list[float]:
    """Return the main process's numbers on every rank (process). Integers up to 2**53 stay exact.

    Every rank must pass the same number of values.
    """
    if world_size() == 1:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(numbers, src=0)
    return [float(x) for x in numbers]
