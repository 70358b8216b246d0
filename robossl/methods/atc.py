"""ATC: predict how a slow copy of the encoder embeds the frame that comes k steps later (arXiv:2009.08319).

The two frames of a clip are augmented separately. The paper shifts frames by up to 4 pixels. It shifts every frame on
DMControl, and a tenth of the frames on DMLab and Atari. Here each frame is cropped to 80 % or more of its area. Set
`view.ratio` to the aspect ratio of your frames, because a crop of another shape cannot cover 80 %. docs/methods.md
lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.teacher import Ema, check_momentum
from robossl.methods.parts.temporal import (
    ResidualMLP,
    clip_view,
    contrast,
    count_pairs,
    encode_clip,
    mean_over_pairs,
    pool_frames,
    similarity,
)
from robossl.views import OPERATIONS, Batch, ClipSpec, ViewSpec

# A random crop replaces the paper's random shift.
VIEW = ViewSpec(scale=(0.8, 1.0), hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class ATCConfig:
    """ATC with the numbers of the authors' DMControl runs (rlpyt/ul, dmc_atc.py). Only the augmentation is ours."""

    ahead_seconds: float = 0.1  # time between the two frames; k in the paper: 1 step on DMControl, 3 on DMLab and Atari
    output_dim: int = 128  # width of an embedding; the authors have 256 on DMLab and Atari
    predictor_hidden_dim: int = 512
    momentum: float = 0.99  # 1 - tau; the authors update the slow copy with tau = 0.01
    view: ViewSpec = VIEW  # augmentation, drawn for each of the two frames separately

    def __post_init__(self) -> None:
        if self.ahead_seconds <= 0:
            raise InputError(f"ahead_seconds must be positive, got {self.ahead_seconds}")
        check_momentum(self.momentum, paper=0.99)
        clip_view(self.view, ClipSpec())

    def build(self, encoder: Encoder) -> ATC:
        """Return the method with these settings, which trains `encoder`."""
        return ATC(encoder, self)


class ATC(Method):
    """InfoNCE loss. The negatives are the later frames of the other clips on all ranks."""

    takes_clips = True
    shared_in_batch = ("negatives",)

    def __init__(self, encoder: Encoder, config: ATCConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)
        self.predictor = ResidualMLP(config.output_dim, config.predictor_hidden_dim)
        self.w = nn.Linear(config.output_dim, config.output_dim, bias=False)
        self.teacher = Ema(self.encoder, self.projector)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return one clip of two frames."""
        clip = ClipSpec(2, self.config.ahead_seconds, rule="inside")
        return (replace(clip_view(self.config.view, clip), per_frame=OPERATIONS),)

    def forward(self, batch: Batch) -> Loss:
        """Return the InfoNCE loss of the predictions W (c + MLP(c)), where c is the embedding of the earlier frame.

        The positive is the teacher's embedding of the later frame.
        """
        view = batch.views[0]
        c = encode_clip(self.encoder, self.projector, view.pixels[:, :1])
        with torch.no_grad():
            encoder, projector = self.teacher.copies
            later = encode_clip(encoder, projector, view.pixels[:, 1:])
        pool = pool_frames(later, view.time_seconds[:, 1:], view.valid.all(1, keepdim=True))
        own = pool.own.flatten()
        logits = similarity(self.w(self.predictor(c[:, 0])), pool.z, "dot")
        sums = contrast(logits, pool, anchor=own, positive=own, negatives="other")
        loss, metrics = mean_over_pairs([sums], {"later": sums}, same_clip=False)
        return Loss(loss, metrics, outputs=(c[:, 0].detach(), later[:, 0]), weight=count_pairs([sums]))

    def after_step(self, progress: float) -> None:
        """Update the teacher's weights, a moving average of the encoder's weights."""
        self.teacher.update(self.encoder, self.projector, momentum=self.config.momentum)
