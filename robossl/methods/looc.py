"""LooC: one embedding space for each augmentation to be kept, and one that keeps none (arXiv:2008.05659).

A query and n + 1 keys are views (augmented frames) of one sample. Key 0 is drawn independently. Key i has the same draw
of the i-th augmentation as the query. In space 0 all keys are positives. In space i only key i is a positive; the other
keys and the queue are negatives. Only the i-th augmentation distinguishes key i from the other keys, so space i must
keep it. Keys, queues and batch-norm are those of MoCo. The paper does not say which keys are queued. Here space i
queues key i, also for i = 0. The authors have published no code. docs/methods.md lists the deviations from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

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
from robossl.views import Batch, Operation, ViewSpec

VIEW = ViewSpec(turn_p=0.75)  # MoCo v2's view, plus the paper's rotation by 0, 90, 180 or 270 degrees


@dataclass(frozen=True, slots=True)
class LooCConfig:
    """LooC with the numbers of MoCo v2."""

    # Augmentations that each space keeps. By default, one space keeps colour and one keeps rotation.
    kept: tuple[tuple[Operation, ...], ...] = (("jitter", "grayscale"), ("turn",))
    temperature: float = 0.2  # MoCo v2, table 2
    momentum: float = 0.999  # MoCo v1, section 3.3
    queue_size: int = 16384  # number of rows in the queue of each embedding space
    output_dim: int = 128  # width of an embedding in each space; the hidden layer is as wide as the feature
    batch_norm_groups: int = 8  # groups of the batch with separate batch-norm statistics, as in moco
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InputError(f"temperature must be positive, got {self.temperature}; MoCo v2 has 0.2")
        check_momentum(self.momentum, paper=0.999)
        if self.queue_size < 1 or self.batch_norm_groups < 1:
            raise InputError(
                f"queue_size and batch_norm_groups must be 1 or more, got {self.queue_size} and "
                f"{self.batch_norm_groups}; the defaults are 16384 and 8"
            )
        if not self.kept or not all(self.kept):
            raise InputError(f"kept must name the operations of one space or more, got {self.kept}; as in [[turn]]")
        for space in self.kept:
            if not any(_is_drawn(self.view, operation) for operation in space):
                raise InputError(
                    f"kept has a space for {', '.join(space)}, which the view never draws: its key would equal key 0; "
                    "give method.view a probability for it or leave it out of kept"
                )

    def build(self, encoder: Encoder) -> LooC:
        """Return the method with these settings, which trains `encoder`."""
        return LooC(encoder, self)


def _is_drawn(view: ViewSpec, operation: Operation) -> bool:
    if operation == "crop":
        return view.scale[0] < 1
    own = {"flip": "hflip_p", "rotation": "rotation_degrees"}
    return bool(getattr(view, own.get(operation, f"{operation}_p")))


def looc_loss(
    q: Float[Tensor, "b s d"], k: Float[Tensor, "v b s d"], queues: Float[Tensor, "s n d"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return the loss of the paper's section 3 for unit vectors, averaged over the batch.

    For n kept augmentations, the loss is the sum of 2 n + 1 terms, divided by n + 1. The mean of the ranks' values is
    the loss of the global batch. All ranks have the same queues.

    Args:
        q: queries, embedded in each of the s = n + 1 spaces.
        k: keys. Each sample has v = s keys, and each key is embedded in all s spaces.
        queues: negatives of each space.
        temperature: tau of the paper.
    """
    with without_autocast(q):
        positive = torch.einsum("bsd,vbsd->svb", q, k) / temperature
        negative = torch.logsumexp(torch.einsum("bsd,snd->sbn", q, queues) / temperature, dim=-1)
    total = F.softplus(negative[0] - positive[0]).sum(0)
    for space in range(1, len(positive)):
        among = torch.logsumexp(torch.cat([positive[space], negative[space][None]]), dim=0)
        total = total + among - positive[space, space]
    return total.mean() / len(positive)


class LooCHeads(nn.ModuleList):
    """One projection head for each embedding space."""

    def forward(self, pooled: Float[Tensor, "b c"]) -> Float[Tensor, "b s d"]:
        """Return an embedding of each sample in each space."""
        return torch.stack([head(pooled) for head in self], dim=1)


class LooC(Method):
    """LooC loss with one encoder, and one head and one queue for each space."""

    def __init__(self, encoder: Encoder, config: LooCConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        dims = [encoder.feature_dim, encoder.feature_dim, config.output_dim]
        self.projector = LooCHeads(mlp(dims, norm="none") for _ in range(1 + len(config.kept)))
        self.batch_norm_groups = config.batch_norm_groups if has_batch_norm(encoder) else None
        self.keys = MomentumKeys(encoder, self.projector, shuffled=(self.batch_norm_groups or 1) > 1)
        self.queues = nn.ModuleList(Queue(config.queue_size, config.output_dim) for _ in self.projector)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return the views (augmented frames): the query, the independent key, and a key for each kept augmentation."""
        view = self.config.view
        return (view, view, *(replace(view, as_first=operations) for operations in self.config.kept))

    def forward(self, batch: Batch) -> Loss:
        """Return the loss. The metrics `kept_...` measure how well each embedding space keeps its augmentation.

        For each augmentation that has its own space, the metric is a share of queries. A query counts if the nearest of
        its sample's keys in that space was made with the same random parameters of this augmentation.
        """
        q = unit(self.projector(self.encoder(batch.views[0].pixels).pooled))
        k = torch.stack([self.keys(view.pixels, number=i) for i, view in enumerate(batch.views[1:])])
        queues = cast("list[Queue]", list(self.queues))
        # `stack` makes a copy. The loss needs it, because the queues' rows change before the backward pass.
        before = torch.stack([queue.rows for queue in queues])
        loss = looc_loss(q, k, before.to(q.dtype), temperature=self.config.temperature)
        metrics = {}
        for space, operations in enumerate(self.config.kept, start=1):
            nearest = torch.einsum("bd,vbd->vb", q[:, space].detach(), k[:, :, space]).argmax(0)
            metrics["kept_" + "_".join(operations)] = (nearest == space).to(q.dtype).mean()
        self.remember({"positives": torch.stack([k[space, :, space] for space in range(len(queues))], dim=1)})
        return Loss(loss, metrics=metrics, outputs=(q.detach().flatten(1), k[0].flatten(1)))

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Push key i of each sample into the queue of space i, and choose new shuffles for the next step's keys."""
        self.keys.next_shuffle(len(self.queues))
        for queue, own in zip(cast("list[Queue]", list(self.queues)), rows["positives"].unbind(1), strict=True):
            queue.push(own)

    def after_step(self, progress: float) -> None:
        """Update the key encoder's weights, a moving average of the encoder's, as in MoCo."""
        self.keys.update(self.encoder, self.projector, momentum=self.config.momentum)
