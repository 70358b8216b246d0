"""Functions for sharded modules: every rank keeps a part of each weight, of its gradient and of its optimizer state.

This is FSDP2 (`fully_shard` of torch). Before a part of the module runs, its weights are gathered; afterwards they are
freed again. Tensors that are not sharded pass through the functions unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from robossl.common.ranks import Ranks


def shard(module: nn.Module, parts: Iterable[nn.Module], ranks: Ranks) -> nn.Module:
    """Shard a module over all ranks, in place, and return it.

    Args:
        module: The module; its buffers stay whole on every rank.
        parts: Modules within it, inner ones first, whose weights are gathered and freed together. The remaining weights
            are gathered before the module's forward pass and freed after its backward pass.
        ranks: The ranks to shard over.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # takes seconds

    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for part in [*parts, module]:
        fully_shard(part, mesh=mesh)
    return module


def is_sharded(module: nn.Module) -> bool:
    """Return whether `shard` was called on a module."""
    return hasattr(module, "set_requires_gradient_sync")  # a method of FSDPModule, whose import takes seconds


def sync_gradients(module: nn.Module, *, now: bool) -> None:
    """Say whether the next backward pass of a sharded module averages gradients over ranks, or keeps adding them up."""
    sharded: Any = module
    sharded.set_requires_gradient_sync(now)


def own_part(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that this rank keeps; it shares memory with the tensor."""
    sharded: Any = tensor
    part: Tensor = sharded.to_local() if _is_part(tensor) else tensor
    return part


def whole(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; all ranks must call this."""
    sharded: Any = tensor
    gathered: Tensor = sharded.full_tensor() if _is_part(tensor) else tensor
    return gathered


def sharded_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Return this rank's part of a whole tensor, sharded as `like` is; every rank passes the same whole tensor."""
    if not _is_part(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = like
    moved = tensor.to(like.device)
    return distribute_tensor(moved, sharded.device_mesh, sharded.placements, src_data_rank=None)


def _is_part(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # a method of DTensor, whose import takes seconds
