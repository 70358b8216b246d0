"""SwAV: codes of one crop, equally shared out over prototypes, are read off the other crops (arXiv:2006.09882).

Batch-norm has the statistics of the global batch; the authors' runs have those of groups of 8 GPUs, 512 samples of a
batch of 4096. Further deviations: docs/methods.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn import functional as F

from robossl.encoder import Encoder
from robossl.errors import InputError
from robossl.heads import mlp
from robossl.losses import full_precision
from robossl.method import Loss, Method
from robossl.multicrop import pooled_crops
from robossl.ranges import check_positive
from robossl.ranks import all_reduce_sum, rank, world_size
from robossl.teacher import Queue
from robossl.views import Batch, ViewSpec

GLOBAL = ViewSpec(  # appendix A: SimCLR's colours
    scale=(0.14, 1.0), brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2
)
LOCAL = replace(GLOBAL, size=96, scale=(0.05, 0.14))
LEAST_EPSILON = 0.0125  # e^80 times a batch of thousands is the most that float32 holds
MAX_FREEZE = 0.1  # of the run, whatever the number of steps


@dataclass(frozen=True, slots=True)
class SwAVConfig:
    """SwAV with the paper's numbers; steps are those of its batch of 4096."""

    prototypes: int = 3000  # appendix A
    hidden_dim: int = 2048  # appendix A
    output_dim: int = 128  # appendix A
    temperature: float = 0.1  # section 4
    epsilon: float = 0.05  # appendix A: how soft the codes are
    sinkhorn_iterations: int = 3  # section 3.1; 0: codes are a plain softmax
    freeze_prototypes_steps: int = 313  # official code: the first epoch (5005 at batch 256); at most 0.1 of the run
    queue_size: int = 0  # section 3.1: 3840 at batch 256; frames whose features help to share out, for each of 2 crops
    queue_from_step: int = 0  # 75,075 at batch 256: epoch 15, when features have settled
    num_local_views: int = 6  # section 4: 2 x 224 + 6 x 96
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
        """Make the method around an encoder."""
        return SwAV(encoder, self)


class SwAV(Method):
    """The first two crops get codes, which every other crop predicts."""

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
        """Two global crops, then the local ones."""
        return (self.config.global_view,) * 2 + (self.config.local_view,) * self.config.num_local_views

    def before_step(self, step: int, steps: int) -> None:
        """Give the prototypes unit length; hold them for the first steps, and start the queues when it is time."""
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        self.prototypes_are_frozen = step < min(self.config.freeze_prototypes_steps, int(MAX_FREEZE * steps))
        self.queue_takes_rows = step >= self.config.queue_from_step

    def forward(self, batch: Batch) -> Loss:
        """Section 3.2: -q_i . log p_v, mean over the codes i of the first two crops and the other crops v.

        Over ranks: the mean of the ranks' values is the global value; codes are shared out over the global batch.
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
        outputs = tuple(each.detach().exp() for each in log_p[:2])  # features may differ and all fall to one prototype
        return Loss(loss, {"code_entropy": entropy}, outputs)

    def _scores(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        with torch.autocast(z.device.type, enabled=False):
            scores: Tensor = self.prototypes(z)
        return scores

    @torch.no_grad()
    def _codes(self, scores: tuple[Tensor, ...]) -> list[Float[Tensor, "b k"]]:
        """The codes of the two crops of this rank, shared out together with the queues' rows once those are full."""
        config, found = self.config, []
        queues = [queue for queue in self.queues if isinstance(queue, Queue)]
        full = bool(queues) and int(self.num_queued) >= config.queue_size
        for i, own in enumerate(scores):
            # every rank holds the same queue and takes its part of it
            queued = [self._scores(queues[i].rows[rank() :: world_size()].to(own.dtype))] if full else []
            codes = sinkhorn(cat([own, *queued]), epsilon=config.epsilon, iterations=config.sinkhorn_iterations)
            found.append(codes[: len(own)])
        return found

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Queue the features of the first two crops, when it is time."""
        if self.queues and self.queue_takes_rows:
            for queue, own in zip(self.queues, rows["features"].unbind(1), strict=True):
                assert isinstance(queue, Queue)
                queue.push(own)
            self.num_queued += world_size() * len(rows["features"])

    def after_backward(self) -> None:
        """Drop the gradient of the prototypes while they are frozen."""
        if self.prototypes_are_frozen:
            self.prototypes.weight.grad = None


def sinkhorn(scores: Float[Tensor, "b k"], *, epsilon: float, iterations: int) -> Float[Tensor, "b k"]:
    """Codes near the scores whose prototypes get equal shares of the global batch (equations 3 to 5).

    Each row sums to one. Over ranks: every rank passes its own rows; the prototypes' shares are summed over all.
    """
    codes = (scores / epsilon).exp()
    for _ in range(iterations):
        codes = codes / all_reduce_sum(codes.sum(dim=0))
        codes = codes / codes.sum(dim=1, keepdim=True)
    return codes / codes.sum(dim=1, keepdim=True)
