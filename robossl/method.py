"""Method: the one interface between the loop and every pretraining method."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoder import Encoder
from robossl.views import Batch, ViewSpec


class Loss(NamedTuple):
    """What a method's forward returns.

    Example:
        >>> import robossl, torch
        >>> z = torch.ones(4, 8, requires_grad=True)
        >>> loss = robossl.Loss(z.square().mean(), metrics={}, outputs=(z.detach(),))
        >>> loss.value.item()
        1.0
    """

    value: Float[Tensor, ""]  # this rank's share: the mean over ranks is the loss of the global batch
    metrics: dict[str, Tensor]  # detached scalars to log
    outputs: tuple[Float[Tensor, "b d"], ...]  # detached embeddings, one a view, that the health monitors watch
    weight: Float[Tensor, ""] | None = None  # of a micro-batch in its step: pairs counted on all ranks; None: all alike


class Method(nn.Module):
    """A pretraining method: an encoder, heads, declared views and a loss.

    Call it as `method(batch)`, never `.forward`: DDP acts in hooks.

    Example:
        >>> import robossl
        >>> from robossl.encoder import EncoderConfig, build_encoder
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

    encoder: Encoder  # what is exported: the student or the teacher, as the paper evaluates
    constant_lr: tuple[str, ...] = ()  # prefixes of parameter names whose learning rate does not decay
    takes_clips: bool = False  # whether its views have a time axis
    batch_norm_groups: int | None = None  # groups of the global batch with statistics of their own; None: one for all
    shared_in_batch: tuple[str, ...] = ()  # what a frame's loss takes from the rest of its (micro-)batch: "negatives"
    _waiting: list[dict[str, Tensor]] | None = None  # remembered by the step's micro-batches; None: write at once

    def views(self) -> tuple[ViewSpec, ...]:
        """The views of one sample, in the order that `forward` expects them."""
        raise NotImplementedError

    def encoder_sizes(self) -> set[int]:
        """Sides of the squares that the encoder is trained on, in pixels: those of the views, unless it cuts them."""
        return {spec.size for spec in self.views()}

    def forward(self, batch: Batch) -> Loss:
        """The loss of this rank's share of the global batch."""
        raise NotImplementedError

    def remember(self, rows: dict[str, Tensor]) -> None:
        """Hand what this batch adds to the memory (a queue, centre or bank) to `update_memory`, once a step.

        Call it once in every `forward`, after the loss, and write to no buffer there: under gradient accumulation a
        forward sees a micro-batch, and the next one must find the memory as it was when the step began.

        Args:
            rows: tensors by name, a row a sample (or a row a micro-batch, such as its mean). Those of a step's
                micro-batches are joined along the first axis.
        """
        detached = {name: value.detach() for name, value in rows.items()}
        if self._waiting is None:
            self.update_memory(detached)
        else:
            self._waiting.append(detached)

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Move the memory by this rank's rows of the whole step; `Queue`, `Center` and the bank gather those of all.

        Args:
            rows: what `remember` was given, without gradients.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Treat the forward passes inside as the micro-batches of one step: the memory moves once, at the end."""
        self._waiting = []
        try:
            yield
            waiting = self._waiting
        finally:
            self._waiting = None
        if waiting:
            self.update_memory({name: torch.cat([rows[name] for rows in waiting]) for name in waiting[0]})

    def before_step(self, step: int, steps: int) -> None:
        """Called before every step with its number, from 0, and the run's length (temperatures, what is frozen).

        It may change weights, as SwAV does. A resumed run is told again, so what is set here needs no buffer.
        """

    def after_backward(self) -> None:
        """Called when the step's gradients are whole, before they are clipped and used (frozen layers)."""

    def after_step(self, progress: float) -> None:
        """Called after every optimizer step; progress rises to 1 at the end of the run (EMA)."""


@runtime_checkable
class MethodConfig(Protocol):
    """A method's configuration: a frozen dataclass that builds it."""

    def build(self, encoder: Encoder) -> Method:
        """Make the method around an encoder; draws initial weights from torch's global generator."""
        ...
