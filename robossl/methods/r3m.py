"""R3M's time-contrastive loss: of three frames in order, neighbours are the most similar (arXiv:2203.12601).

The authors' language reward is left out. Their config_rep.yaml switches it off, but the training command of their
README switches it on (`agent.langweight=1.0`). Their clips have two more frames for that reward, which batch-norm and
the penalties also use. They draw negatives from other videos by a random permutation, which may select the same video.
Our negatives come from cyclic shifts of the global batch, which always select another video. All frames of a clip get
the same crop, as in the README's command (`rctraj`). The embedding of a frame is the pooled feature, without a
projector. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, cat, nn

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.temporal import (
    clip_view,
    count_true,
    draw_other_clips,
    encode_clip,
    global_means,
    length_penalty,
    mean_where,
    rowwise_similarity,
)
from robossl.views import Batch, ClipSpec, ViewSpec

# The authors' option `rctraj`: a random crop, the same for all frames of a clip.
VIEW = ViewSpec(scale=(0.2, 1.0), hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class R3MConfig:
    """R3M with the numbers of the authors' config_rep.yaml, which their README's command keeps."""

    similarity: Literal["l2", "cosine"] = "l2"  # l2: minus the Euclidean distance
    num_negatives: int = 3  # number of other videos that serve as negatives
    l1_weight: float = 1e-5
    l2_weight: float = 1e-5
    gap_seconds: float = 0.1  # minimum time between the first two frames; one frame in the official loader
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if self.num_negatives < 0 or self.gap_seconds < 0:
            raise InputError(
                f"num_negatives and gap_seconds must not be negative, got {self.num_negatives} and {self.gap_seconds}"
            )
        check_range(0, l1_weight=self.l1_weight, l2_weight=self.l2_weight)
        clip_view(self.view, ClipSpec())

    def build(self, encoder: Encoder) -> R3M:
        """Return the method with these settings, which trains `encoder`."""
        return R3M(encoder, self)


class R3M(Method):
    """Loss that raises S(s1, s2) and S(s0, s1) above S(s0, s2) and above the similarity to frames of other videos.

    S is the similarity; s0, s1 and s2 are the frames of a clip in order.
    """

    takes_clips = True

    def __init__(self, encoder: Encoder, config: R3MConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.shared_in_batch = ("negatives",) if config.num_negatives else ()
        self.step = 0

    def views(self) -> tuple[ViewSpec, ...]:
        """Return one clip of three frames in order."""
        return (clip_view(self.config.view, ClipSpec(3, self.config.gap_seconds, rule="ordered")),)

    def before_step(self, step: int, steps: int) -> None:
        """Store the number of the step, which seeds the choice of negatives."""
        self.step = step

    def forward(self, batch: Batch) -> Loss:
        """Return the time-contrastive loss L_tcn plus the penalties on norms, averaged over the global batch."""
        view, config = batch.views[0], self.config
        z = encode_clip(self.encoder, nn.Identity(), view.pixels)
        s0, s1, s2 = z.unbind(1)
        valid = view.valid.all(1)
        near2, near0, far = (rowwise_similarity(a, b, config.similarity) for a, b in ((s2, s1), (s1, s0), (s2, s0)))
        others, known = draw_other_clips(z, valid, count=config.num_negatives, step=self.step)
        away2, away0 = (
            rowwise_similarity(s[:, None], others[:, :, i], config.similarity).masked_fill(~known, -torch.inf)
            for i, s in ((2, s2), (0, s0))
        )
        late, early = _info_nce(near2, far, away2), _info_nce(near0, far, away0)
        loss = (late + early) / 2 + length_penalty(z, l1=config.l1_weight, l2=config.l2_weight)
        means = global_means(
            {
                "loss": mean_where(loss, valid),
                "accuracy_late": mean_where((near2 > far).to(loss.dtype), valid),
                "accuracy_early": mean_where((near0 > far).to(loss.dtype), valid),
                "chance": mean_where(torch.full_like(loss, 0.5), valid),
            }
        )
        return Loss(means.pop("loss"), means, outputs=(s0.detach(), s2.detach()), weight=count_true(valid))


def _info_nce(near: Tensor, far: Tensor, away: Tensor) -> Tensor:
    """Return the InfoNCE loss of each clip, -log softmax([near, far, *away])[near]; the arguments are similarities."""
    return cat([near[:, None], far[:, None], away], 1).logsumexp(1) - near
