"""Method: the one interface between the training loop and every pretraining method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder
from robossl.views import Batch, ViewSpec


class Loss(NamedTuple):
    """The result of a method's forward pass.

    Attributes:
        value: This rank's loss; its mean over ranks is the loss of the global batch.
        metrics: Detached scalars to log, by name.
        outputs: Detached embeddings of each view, a row for each sample, for the collapse monitor.
        weight: Weight of a micro-batch: its number of pairs on all ranks. None: all micro-batches have the same weight.

    Example:
        >>> import robossl, torch
        >>> z = torch.ones(4, 8, requires_grad=True)
        >>> loss = robossl.Loss(z.square().mean(), metrics={}, outputs=(z.detach(),))
        >>> loss.value.item()
        1.0
    """

    value: Float[Tensor, ""]
    metrics: dict[str, Tensor]
    outputs: tuple[Float[Tensor, "b d"], ...]
    weight: Float[Tensor, ""] | None = None


class Method(nn.Module):
    """A pretraining method: an encoder, heads, the declaration of its views (augmented frames) and a loss.

    Call it as `method(batch)`, never as `method.forward(batch)`, because only the call runs the hooks that DDP needs.

    Example:
        >>> import robossl
        >>> from robossl.encoders.encoder import EncoderConfig, build_encoder
        >>> class Toy(robossl.Method):
        ...     def __init__(self, encoder):
        ...         super().__init__()
        ...         self.encoder = encoder
        ...     def views(self):
        ...         return (robossl.ViewSpec(size=32), robossl.ViewSpec(size=32))
        ...     def forward(self, batch):
        ...         z0, z1 = (self.encoder(view.pixels).pooled for view in batch.views)
        ...         return robossl.Loss((z0 - z1).square().mean(), metrics={}, outputs=(z0.detach(), z1.detach()))
        >>> Toy(build_encoder(EncoderConfig("test_resnet"))).encoder_sizes()
        {32}
    """

    encoder: Encoder  # the exported encoder: student or teacher, whichever the paper evaluates
    constant_lr: tuple[str, ...] = ()  # prefixes of the parameters whose learning rate does not decay
    takes_clips: bool = False  # whether the method's views are clips: frames with a time axis
    batch_norm_groups: int | None = None  # groups of the batch with separate batch-norm statistics; None: one group
    # What the loss of a sample uses from the other samples of its micro-batch, such as "negatives".
    shared_in_batch: tuple[str, ...] = ()
    # Rows that were passed to `remember` in this step so far, for the method's memory (such as a queue of keys).
    # If this is None, `remember` updates the memory at once.
    _waiting: list[dict[str, Tensor]] | None = None

    def views(self) -> tuple[ViewSpec, ...]:
        """Return the specification of each view (augmented frame) of a sample, in the order that `forward` expects."""
        raise NotImplementedError

    def discrete_columns(self) -> dict[str, int]:
        """Return how many values each discrete column of the clips has, by name; a run checks its stores for them."""
        return {}

    def teacher_records(self) -> list[dict[str, Any]]:
        """Return what the card of the encoder says of its teachers; see `robossl.encoders.cards.teacher_record`."""
        return []

    def encoder_sizes(self) -> set[int]:
        """Return the sizes of the encoder's inputs in pixels; override it if the method cuts its views into pieces."""
        return {spec.size for spec in self.views()}

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of this rank's share of the global batch."""
        raise NotImplementedError

    def remember(self, rows: dict[str, Tensor]) -> None:
        """Collect rows for the method's memory (a queue, centre or bank); `update_memory` gets them once per step.

        Call this once in every `forward`, after the loss, and write to no buffer in `forward`. With gradient
        accumulation, a forward pass sees one micro-batch, and the next micro-batch must find the memory unchanged.

        Args:
            rows: tensors by name, with one row for each sample, or one row for the micro-batch, such as its mean. The
                rows of a step's micro-batches are joined along the first axis. Half-precision
                rows, which a forward pass under mixed precision gives, are converted to float32.
        """
        detached = {name: _widen(value.detach()) for name, value in rows.items()}
        if self._waiting is None:
            self.update_memory(detached)
        else:
            self._waiting.append(detached)

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Update the method's memory with this rank's rows of the whole step.

        `Queue`, `Center` and `MovingAverageBank` collect the rows of the other ranks themselves.

        Args:
            rows: the rows that were passed to `remember`, without gradients; none is in half precision.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Treat the forward passes in a `with` block as micro-batches of one step, then update the method's memory."""
        self._waiting = []
        try:
            yield
            waiting = self._waiting
        finally:
            self._waiting = None
        if waiting:
            self.update_memory({name: torch.cat([rows[name] for rows in waiting]) for name in waiting[0]})

    def before_step(self, step: int, steps: int) -> None:
        """Prepare step number `step` (from 0) of `steps`: for example set temperatures, freeze layers, change weights.

        The training loop calls this before every step, also in a resumed run. Values that are set here therefore need
        not be saved.
        """

    def after_backward(self) -> None:
        """Change the step's gradients before they are clipped, for example remove those of frozen layers."""

    def after_step(self, progress: float) -> None:
        """Update the weights of teachers after an optimizer step; `progress` is the share of the run that is done."""


def encoders_of(method: nn.Module) -> list[Encoder]:
    """Return all encoders in a method: the trained one and its copies, such as teachers."""
    return [module for module in method.modules() if isinstance(module, Encoder)]


def _widen(rows: Tensor) -> Tensor:
    """Return rows in float32 if they are in half precision; return other rows as they are."""
    return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows


@runtime_checkable
class MethodConfig(Protocol):
    """A method's configuration: a frozen dataclass that builds the method."""

    def build(self, encoder: Encoder) -> Method:
        """Return the method that trains `encoder`; draw initial weights from torch's global generator."""
        ...
