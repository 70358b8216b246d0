"""Batch-norm over several ranks (processes), with statistics of the global batch or of groups of its samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from robossl.common.ranks import all_reduce_mean, all_reduce_sum, gather, world_size
from robossl.errors import InputError

M = TypeVar("M", bound=nn.Module)


@contextlib.contextmanager
def raise_small_batch(batch_size: int) -> Iterator[None]:
    """If a batch-norm in the `with` block gets only one value per channel, raise an error of one line.

    Raises:
        InputError: the batch is too small for the method and encoder.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("Expected more than 1 value per channel"):
            raise
        raise InputError(
            f"train.batch_size {batch_size} leaves a batch-norm one value for its statistics; raise it, or "
            "lower train.accumulate or method.batch_norm_groups"
        ) from error


class _NormaliseOverRanks(torch.autograd.Function):
    """Batch-norm with given statistics of all ranks. The backward pass needs input, mean and 1/std, which are saved."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, var: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std = ctx.saved_tensors
        shape, dims = _channel_shape(x), _all_but_channel(x)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * inverse_std.view(shape)
        dy = grad.to(mean.dtype)
        sums = torch.stack([dy.sum(dims), (dy * normalised).sum(dims)])
        # These are sums of this rank only, because DDP averages gradients over ranks.
        grad_bias, grad_weight = sums
        mean_dy, mean_dy_normalised = all_reduce_sum(sums) / (world_size() * x.numel() / x.shape[1])
        dx = dy - mean_dy.view(shape) - normalised * mean_dy_normalised.view(shape)
        dx = dx * (inverse_std if weight is None else inverse_std * weight).view(shape)
        affine = (None, None) if weight is None else (grad_weight, grad_bias)
        return dx.to(x.dtype), *affine, None, None, None


def _channel_shape(x: Tensor) -> list[int]:
    return [1, -1] + [1] * (x.ndim - 2)


def _all_but_channel(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]


class SyncBatchNorm(_BatchNorm):
    """Batch-norm over the samples of all ranks, on any backend. torch's `SyncBatchNorm` refuses CPU tensors.

    Outputs, gradients and running statistics are those of a single process on the joined batch. Every rank has the same
    running statistics. The running variance is updated with the unbiased variance of the global batch.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        assert x.ndim in (2, 4)

    def forward(self, x: Shaped[Tensor, "b c ..."]) -> Shaped[Tensor, "b c ..."]:
        """Normalise each channel. In eval mode, or with a single process, the result is that of torch's batch-norm."""
        if not self.training or world_size() == 1:
            out: Tensor = super().forward(x)
            return out
        mean, var = _moments_over_ranks(x.detach())
        if self.track_running_stats:
            self._track(mean, var, count=world_size() * x.numel() // x.shape[1])
        out = _NormaliseOverRanks.apply(x, self.weight, self.bias, mean, var, self.eps)
        return out

    def _track(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_((var * count / (count - 1)).to(self.running_var.dtype), self.momentum)


def _moments_over_ranks(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance of each channel over the samples of all ranks."""
    precise = x if x.dtype == torch.float64 else x.float()
    var, mean = torch.var_mean(precise, dim=_all_but_channel(x), correction=0)
    means, variances = gather(torch.stack([mean, var]).unsqueeze(0)).unbind(1)
    joined = means.mean(0)
    return joined, variances.mean(0) + (means - joined).square().mean(0)


class SplitBatchNorm(_BatchNorm):
    """Batch-norm with separate statistics for groups of consecutive samples, as if each group had its own GPU.

    MoCo needs separate statistics. It shuffles keys across groups, so that a query and its key are normalised with
    different statistics. Otherwise the statistics would reveal which key belongs to the query (section 3.3 of
    arXiv:1911.05722). The running statistics are the mean over the groups of all ranks, so every rank has the same.
    """

    groups: int = 1

    def _check_input_dim(self, x: Tensor) -> None:
        assert x.ndim in (2, 4)
        if self.training and len(x) % self.groups:
            raise InputError(
                f"a batch of {len(x)} on this rank does not divide into {self.groups} groups of batch-norm; "
                "choose a batch that does, or another number of groups (method.batch_norm_groups)"
            )

    def forward(self, x: Shaped[Tensor, "b c ..."]) -> Shaped[Tensor, "b c ..."]:
        """Normalise each group of the batch separately. In eval mode, the result is that of torch's batch-norm."""
        if not self.training:
            whole: Tensor = super().forward(x)
            return whole
        self._check_input_dim(x)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        stats = [(self.running_mean.clone(), self.running_var.clone()) for _ in range(self.groups)]
        parts = [
            F.batch_norm(part, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
            for part, (mean, var) in zip(x.chunk(self.groups), stats, strict=True)
        ]
        mean, var = (all_reduce_mean(torch.stack(each).mean(0)) for each in zip(*stats, strict=True))
        self.running_mean.copy_(mean)
        self.running_var.copy_(var)
        self.num_batches_tracked.add_(1)
        return torch.cat(parts)


def convert_sync_batchnorm(module: M) -> M:
    """Replace every batch-norm in a module by a `SyncBatchNorm` with the same parameters and buffers, in place.

    Raises:
        InputError: the module has another kind of batch-norm, such as timm's with a built-in activation.
    """

    def make(old: _BatchNorm) -> _BatchNorm:
        return SyncBatchNorm(old.num_features, old.eps, old.momentum, old.affine)

    return _convert(module, make, "statistics over all ranks", "set train.sync_batch_norm to false")


def convert_split_batchnorm(module: M, *, groups: int) -> M:
    """Replace every batch-norm in a module by a `SplitBatchNorm` over `groups` groups of a rank's batch, in place.

    Raises:
        InputError: the module has another kind of batch-norm, such as timm's with a built-in activation.
    """

    def make(old: _BatchNorm) -> _BatchNorm:
        new = SplitBatchNorm(old.num_features, old.eps, old.momentum, old.affine)
        new.groups = groups
        return new

    return _convert(module, make, f"statistics of {groups} groups", "another method than one with batch_norm_groups")


def _convert(module: M, make: Callable[[_BatchNorm], _BatchNorm], wanted: str, remedy: str) -> M:
    for name, child in module.named_children():
        if not isinstance(child, _BatchNorm):
            _convert(child, make, wanted, remedy)
            continue
        if type(child) not in (nn.BatchNorm1d, nn.BatchNorm2d):
            raise InputError(
                f"cannot give {type(child).__name__} {wanted}, only BatchNorm1d and BatchNorm2d; choose a backbone "
                f"with those (resnet18) or none (vit_small_patch16_224), or {remedy}"
            )
        new = make(child)
        new._parameters, new._buffers = child._parameters, child._buffers
        setattr(module, name, new.train(child.training))
    return module
