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
    """What a method's forward returns."""

    value: Float[Tensor, ""]  # this rank's share: the mean over ranks is the loss of the global batch
    metrics: dict[str, Tensor]  # detached scalars to log
    outputs: tuple[Float[Tensor, "b d"], ...]  # detached embeddings, one a view, that the health monitors watch
    weight: Float[Tensor, ""] | None = None  # of a micro-batch in its step: pairs counted on all ranks; None: all alike


class Method(nn.Module):
    """A pretraining method: an encoder, heads, declared views and a loss.

    Call it as `method(batch)`, never `.forward`: DDP acts in hooks.
    """

    encoder: Encoder  # what is exported: the student or the teacher, as the paper evaluates
    constant_lr: tuple[str, ...] = ()  # prefixes of parameter names whose learning rate does not decay
    takes_clips: bool = False  # whether its views have a time axis
    batch_norm_groups: int | None = None  # groups of the global batch with statistics of their own; None: one for all
    shared_in_batch: tuple[str, ...] = ()  # what a frame's loss takes from the rest of its (micro-)batch: "negatives"
    _waiting: list[dict[str, Tensor]] | None = None  # rows of the step's micro-batches so far

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
        """Move the memory by the rows of this batch; within `one_step`, by those of all its micro-batches at its end.

        Call it in `forward` in place of writing to a buffer, once the loss is made.
        """
        detached = {name: value.detach() for name, value in rows.items()}
        if self._waiting is None:
            self.update_memory(detached)
        else:
            self._waiting.append(detached)

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Write this rank's rows of the whole step to queues, centres and banks, which gather those of all ranks."""

    @contextlib.contextmanager
    def one_step(self) -> Iterator[None]:
        """Take the forward passes inside for the micro-batches of one step: all of them see the memory as it was."""
        self._waiting = []
        try:
            yield
            waiting = self._waiting
        finally:
            self._waiting = None
        if waiting:
            self.update_memory({name: torch.cat([rows[name] for rows in waiting]) for name in waiting[0]})

    @property
    def begins_step(self) -> bool:
        """Whether no micro-batch of the step was remembered yet."""
        return not self._waiting

    def before_step(self, step: int, steps: int) -> None:
        """Called before every step with its number, from 0, and the run's length (temperatures, what is frozen).

        A resumed run is told again, so what is set here needs no buffer.
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
