"""Micro-batches: process a step's batch in parts, but update the weights and the method's memory once per step.

The method's memory is, for example, a queue of keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DataParallel

from robossl.common.sharding import is_sharded, own_part, sync_gradients
from robossl.methods.base import Loss, Method
from robossl.methods.parts.momentum_keys import has_batch_norm
from robossl.training.method_checks import check_loss
from robossl.views import Batch


def split(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch into `parts` micro-batches along its first axis."""
    size = len(batch.index) // parts
    return [batch[i * size : (i + 1) * size] for i in range(parts)] if parts > 1 else [batch]


def accumulate(
    method: Method, model: nn.Module, parts: list[Batch], forward: Callable[[], AbstractContextManager[object]]
) -> Loss:
    """Compute the gradients of a step from its micro-batches and return the step's loss.

    Loss and gradients are means over micro-batches, weighted by `Loss.weight`. Ranks synchronise their gradients once,
    in the last micro-batch. The method's memory (such as a queue of keys) is updated once, with the rows of all
    micro-batches.

    Args:
        method: the method whose memory is updated.
        model: the same method, wrapped or sharded for several ranks.
        parts: the micro-batches.
        forward: function that makes the context manager of each forward pass, such as autocast.

    Raises:
        InputError: the method returns something else than a usable `Loss`.
    """
    losses: list[Loss] = []
    with method.one_step() if len(parts) > 1 else contextlib.nullcontext():
        for number, part in enumerate(parts, start=1):
            with _adding_up(model) if number < len(parts) else contextlib.nullcontext():
                with forward():
                    loss = check_loss(model(part), method)
                value = loss.value / len(parts) if loss.weight is None or len(parts) == 1 else loss.value * loss.weight
                value.backward()  # type: ignore[no-untyped-call]
            losses.append(loss)
    if len(parts) == 1:
        return losses[0]
    weights = _weights(losses)
    if losses[0].weight is not None:
        gradients = [own_part(weight.grad) for weight in model.parameters() if weight.grad is not None]
        torch._foreach_div_(gradients, weights.sum())
    return mean_loss(losses, weights)


@contextlib.contextmanager
def _adding_up(model: nn.Module) -> Iterator[None]:
    """Let the ranks add up their own gradients in a `with` block, without averaging them over ranks."""
    if isinstance(model, DataParallel):
        with model.no_sync():
            yield
    elif is_sharded(model):
        sync_gradients(model, now=False)
        try:
            yield
        finally:
            sync_gradients(model, now=True)
    else:
        yield


def mean_loss(losses: list[Loss], weights: Tensor) -> Loss:
    """Return the weighted mean of the micro-batches' losses and metrics, with the outputs of the last micro-batch."""
    last, shares = losses[-1], weights / weights.sum()
    value = (torch.stack([loss.value.detach() for loss in losses]) * shares).sum()
    metrics = {
        name: (torch.stack([loss.metrics[name].float() for loss in losses]) * shares).sum() for name in last.metrics
    }
    return Loss(value, metrics, last.outputs)


def _weights(losses: list[Loss]) -> Tensor:
    """Return the weights of the micro-batches, the same on all ranks. If all weights are 0, return ones."""
    value = losses[0].value.detach()
    weights = torch.stack([value.new_ones(()) if loss.weight is None else loss.weight.to(value) for loss in losses])
    return torch.where(weights.any(), weights, torch.ones_like(weights))


def describe_parts(method: Method, *, batch_size: int, parts: int) -> str:
    """Describe the micro-batches and what each computes separately, for the first line that a run prints.

    Return "" if the batch is not split.
    """
    if parts == 1:
        return ""
    own = [*method.shared_in_batch, *(["batch-norm statistics"] if has_batch_norm(method) else [])]
    each = f", each with {' and '.join(own)} of its own" if own else ""
    return f" in {parts} micro-batches of {batch_size // parts}{each}"
