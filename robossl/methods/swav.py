"""SwAV: predict the balanced cluster assignment of one crop from the other crops (arXiv:2006.09882).

The paper's codes are soft assignments of a crop to prototypes (cluster centres). Batch-norm takes its statistics from
the global batch; in the authors' runs it took them from groups of 8 GPUs, which hold 512 of the 4096 samples of a
batch. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn import functional as F

from robossl.common.checks import check_positive
from robossl.common.ranks import all_reduce_sum, rank, world_size
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, without_autocast
from robossl.methods.parts.multicrop import pooled_crops
from robossl.methods.parts.teacher import HostCounts, Queue
from robossl.views import Batch, ViewSpec

GLOBAL = ViewSpec(  # appendix A: SimCLR's colours
    scale=(0.14, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
)
LOCAL = replace(GLOBAL, size=96, scale=(0.05, 0.14))
# With this epsilon, exp(score / epsilon) is at most e^80. float32 can just hold the sum of thousands of such values.
LEAST_EPSILON = 0.0125
MAX_FREEZE = 0.1  # longest freeze of the prototypes, as a share of the run's steps


@dataclass(frozen=True, slots=True)
class SwAVConfig:
    """SwAV with the paper's numbers. Numbers of steps are for the paper's batch size of 4096."""

    prototypes: int = 3000  # appendix A
    hidden_dim: int = 2048  # appendix A
    output_dim: int = 128  # appendix A
    temperature: float = 0.1  # section 4
    epsilon: float = 0.05  # appendix A; a larger value makes the codes softer
    sinkhorn_iterations: int = 3  # section 3.1; 0: codes are a plain softmax
    freeze_prototypes_steps: int = 313  # official code: one epoch (5005 steps at batch 256); at most 0.1 of the run
    queue_size: int = 0  # number of earlier features that help to balance codes; section 3.1: 3840 at batch size 256
    # First step at which features enter the queue. In the paper it is 75,075 at batch size 256 (epoch 15, when features
    # are stable).
    queue_from_step: int = 0
    num_local_views: int = 6  # section 4: 2 crops of 224 and 6 of 96 pixels
    global_view: ViewSpec = GLOBAL
    local_view: ViewSpec = LOCAL

    def __post_init__(self) -> None:
        check_positive(temperature=self.temperature)
        if not self.epsilon >= LEAST_EPSILON:
            raise InputError(
                f"epsilon must be {LEAST_EPSILON} or more, got {self.epsilon}: exp(score / epsilon) would overflow; "
                "the paper has 0.05"
            )
        if self.prototypes < 2:
            raise InputError(f"prototypes must be 2 or more, got {self.prototypes}; the paper has 3000")
        for name in ("sinkhorn_iterations", "queue_size", "num_local_views"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be 0 or more, got {getattr(self, name)}")

    def build(self, encoder: Encoder) -> SwAV:
        """Return the method with these settings, which trains `encoder`."""
        return SwAV(encoder, self)


class SwAV(HostCounts, Method):
    """Cross-entropy between the codes (soft cluster assignments) of two crops and the predictions from other crops."""

    num_queued: Tensor

    def __init__(self, encoder: Encoder, config: SwAVConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.shared_in_batch = ("codes",) if config.sinkhorn_iterations else ()
        self.projector = mlp([encoder.feature_dim, config.hidden_dim, config.output_dim])
        self.prototypes = nn.Linear(config.output_dim, config.prototypes, bias=False)
        self.queues = nn.ModuleList(Queue(config.queue_size, config.output_dim) for _ in (0, 1) if config.queue_size)
        self.register_buffer("num_queued", torch.zeros((), dtype=torch.int64))
        self.queue_takes_rows, self.prototypes_are_frozen = True, False

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two global crops, then the local crops."""
        return (self.config.global_view,) * 2 + (self.config.local_view,) * self.config.num_local_views

    def before_step(self, step: int, steps: int) -> None:
        """Normalise the prototypes, freeze them in the first steps, and start the queues at `queue_from_step`."""
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        self.prototypes_are_frozen = step < min(self.config.freeze_prototypes_steps, int(MAX_FREEZE * steps))
        self.queue_takes_rows = step >= self.config.queue_from_step

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's section 3.2: -(code of crop i) . log(prediction from crop v).

        The loss is the mean over all pairs of one of the first two crops, i, and any other crop, v. Codes are balanced
        over the global batch. The mean of the ranks' values is the loss of the global batch.
        """
        num_views = len(batch.views)
        z = F.normalize(full_precision(self.projector(pooled_crops(self.encoder, batch.views))), dim=1)
        scores = self._scores(z)
        q = self._codes(scores.detach().chunk(num_views)[:2])
        log_p = (scores / self.config.temperature).log_softmax(dim=1).chunk(num_views)

        pairs = [(i, v) for i in range(2) for v in range(num_views) if v != i]
        loss = torch.stack([-(q[i] * log_p[v]).sum(dim=1).mean() for i, v in pairs]).mean()

        entropy = -torch.stack([torch.xlogy(each, each).sum(dim=1).mean() for each in q]).mean()
        self.remember({"features": torch.stack(z.chunk(num_views)[:2], dim=1)})
        # The collapse monitor gets the predictions, because features may differ although all select the same prototype.
        outputs = tuple(each.detach().exp() for each in log_p[:2])
        return Loss(loss, {"code_entropy": entropy}, outputs)

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        with without_autocast(z):
            scores: Tensor = self.prototypes(z)
        return scores

    @torch.no_grad()
    def _codes(self, scores: tuple[Tensor, ...]) -> list[Float[Tensor, "b k"]]:
        """Return the codes (soft cluster assignments) of the first two crops; full queues help to balance them."""
        config, found = self.config, []
        queues = [queue for queue in self.queues if isinstance(queue, Queue)]
        full = bool(queues) and self.count("num_queued") >= config.queue_size
        for i, own in enumerate(scores):
            # All ranks hold the same queue, so each rank takes a different part of the rows.
            queued = [self._scores(queues[i].rows[rank() :: world_size()].to(own.dtype))] if full else []
            codes = sinkhorn(cat([own, *queued]), epsilon=config.epsilon, iterations=config.sinkhorn_iterations)
            found.append(codes[: len(own)])
        return found

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Push the features of the first two crops into the queues, from step `queue_from_step` on."""
        if self.queues and self.queue_takes_rows:
            for queue, own in zip(self.queues, rows["features"].unbind(1), strict=True):
                assert isinstance(queue, Queue)
                queue.push(own)
            self.add_count("num_queued", world_size() * len(rows["features"]))

    def after_backward(self) -> None:
        """Drop the gradient of the prototypes while they are frozen."""
        if self.prototypes_are_frozen:
            self.prototypes.weight.grad = None


def sinkhorn(scores: Float[Tensor, "b k"], *, epsilon: float, iterations: int) -> Float[Tensor, "b k"]:
    """Return codes that are close to the scores and use all prototypes equally in the global batch (equations 3 to 5).

    Each row sums to 1. Every rank passes its own rows, and the sum for each prototype is over the rows of all ranks.
    """
    codes = (scores / epsilon).exp()
    for _ in range(iterations):
        codes = codes / all_reduce_sum(codes.sum(dim=0))
        codes = codes / codes.sum(dim=1, keepdim=True)
    return codes / codes.sum(dim=1, keepdim=True)
