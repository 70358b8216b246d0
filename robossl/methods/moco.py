"""MoCo v1 and v2: find a sample's key among a queue of earlier keys (arXiv:1911.05722, 2003.04297).

Version 2 is the default. Version 1 has another head, temperature and augmentation, see configs/moco_v1_*. Batch-norm
takes its statistics from groups of the batch, and keys are shuffled across these groups, even on a single device
(section 3.3). The key encoder is a slow copy of the encoder. It is updated after the optimizer step. The official code
updates it before each forward pass. Both give the same keys, because the update before the first forward pass averages
two equal networks.
Frames are turned grey after colour jitter, as in version 2; the official code of version 1 turns them grey before it.
docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import unit, without_autocast
from robossl.methods.parts.momentum_keys import MomentumKeys, has_batch_norm
from robossl.methods.parts.teacher import Queue, check_momentum
from robossl.views import Batch, ViewSpec

VIEW = ViewSpec()  # the view of version 2; version 1 has jitter_p 1, hue 0.4, blur_p 0


@dataclass(frozen=True, slots=True)
class MoCoConfig:
    """MoCo v2 with the papers' numbers."""

    temperature: float = 0.2  # v2, table 2; v1: 0.07
    momentum: float = 0.999  # v1, section 3.3
    queue_size: int = 65536  # v1, section 3.2
    head: Literal["mlp", "linear"] = "mlp"  # v2, section 3; v1: linear
    output_dim: int = 128  # v1, section 3.3; the hidden layer is as wide as the feature
    batch_norm_groups: int = 8  # groups with separate statistics; v1, section 3.3: 8 GPUs; 1: no shuffling
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InputError(f"temperature must be positive, got {self.temperature}; the paper has 0.2")
        check_momentum(self.momentum, paper=0.999)
        if self.queue_size < 1 or self.batch_norm_groups < 1:
            raise InputError(
                f"queue_size and batch_norm_groups must be 1 or more, got {self.queue_size} and "
                f"{self.batch_norm_groups}; the paper has 65536 and 8"
            )

    def build(self, encoder: Encoder) -> MoCo:
        """Return the method with these settings, which trains `encoder`."""
        return MoCo(encoder, self)


def info_nce(
    q: Float[Tensor, "b d"], k: Float[Tensor, "b d"], queue: Float[Tensor, "n d"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return equation 1 of arXiv:1911.05722 for unit vectors, averaged over the batch.

    The mean of the ranks' values is the loss of the global batch. All ranks have the same queue.
    """
    with without_autocast(q):
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.int64, device=q.device))


class MoCo(Method):
    """InfoNCE: each query must find its key among queued keys. The key is from another view of the query's sample."""

    def __init__(self, encoder: Encoder, config: MoCoConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = _projector(encoder.feature_dim, config)
        self.batch_norm_groups = config.batch_norm_groups if has_batch_norm(encoder) else None
        self.keys = MomentumKeys(encoder, self.projector, shuffled=(self.batch_norm_groups or 1) > 1)
        self.queue = Queue(config.queue_size, config.output_dim)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames) with equal settings."""
        return (self.config.view, self.config.view)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's algorithm 1 (arXiv:1911.05722)."""
        x_q, x_k = (view.pixels for view in batch.views)
        q = unit(self.projector(self.encoder(x_q).pooled))
        k = self.keys(x_k)
        # The loss needs a copy, because the queue's rows change before the backward pass.
        queue = self.queue.rows.clone()
        loss = info_nce(q, k, queue.to(q.dtype), temperature=self.config.temperature)
        self.remember({"keys": k})
        return Loss(loss, metrics={}, outputs=(q.detach(), k))

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Push the keys into the queue, and choose a new shuffle for the next step's keys."""
        self.keys.next_shuffle()
        self.queue.push(rows["keys"])

    def after_step(self, progress: float) -> None:
        """Update the key encoder's weights, a moving average of the encoder's (equation 2 of arXiv:1911.05722)."""
        self.keys.update(self.encoder, self.projector, momentum=self.config.momentum)


def _projector(feature_dim: int, config: MoCoConfig) -> nn.Sequential:
    hidden = [feature_dim] if config.head == "mlp" else []
    return mlp([feature_dim, *hidden, config.output_dim], norm="none")
