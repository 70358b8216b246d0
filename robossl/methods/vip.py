"""VIP: minus the distance to a goal frame is a value function of the current frame (arXiv:2210.00030, algorithm 1).

The log mean exp is taken over the global batch. Unlike in the authors' code, it cannot overflow. As in the authors'
code, all frames of a clip get the same crop. The exported encoder returns the backbone's pooled feature. The authors'
model returns the output of one more layer; the value function is minus the distance between such outputs.
docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.temporal import (
    clip_view,
    draw_other_clips,
    encode_clip,
    global_means,
    length_penalty,
    log_mean_exp,
    mean_where,
    rowwise_similarity,
)
from robossl.views import Batch, ClipSpec, ViewSpec

# The authors' option `rctraj`: a random crop, the same for all frames of a clip.
VIEW = ViewSpec(scale=(0.2, 1.0), hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class VIPConfig:
    """VIP with the numbers of the authors' config_vip_ego4d.yaml, but without the 3 negatives of that file."""

    output_dim: int = 1024
    discount: float = 0.98  # gamma of the paper
    step_seconds: float = 0.1  # time from a frame o_k to the next frame o_k+1; one frame in the official loader
    # Number of other videos that serve as negatives for the goal of a video. The authors' config_vip_ego4d.yaml has 3.
    num_negatives: int = 0
    l1_weight: float = 1e-3
    l2_weight: float = 1e-3
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if not 0 <= self.discount < 1:
            raise InputError(f"discount must be in [0, 1), got {self.discount}; the paper has 0.98")
        if self.step_seconds <= 0 or self.num_negatives < 0:
            raise InputError(
                f"step_seconds must be positive and num_negatives not negative, got {self.step_seconds} and "
                f"{self.num_negatives}"
            )
        check_range(0, l1_weight=self.l1_weight, l2_weight=self.l2_weight)
        clip_view(self.view, ClipSpec())

    def build(self, encoder: Encoder) -> VIP:
        """Return the method with these settings, which trains `encoder`."""
        return VIP(encoder, self)


class VIP(Method):
    """Value function V(o; g) = -|phi(o) - phi(g)|, trained with the dual form of goal-conditioned learning.

    o is a frame, g the goal frame, and phi the embedding.
    """

    takes_clips = True
    shared_in_batch = ("a mean of exponentials",)

    def __init__(self, encoder: Encoder, config: VIPConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)
        self.step = 0

    def views(self) -> tuple[ViewSpec, ...]:
        """Return a clip of four frames: the first, one on the way to the goal, the frame after it, and the goal."""
        return (clip_view(self.config.view, ClipSpec(4, self.config.step_seconds, rule="goal")),)

    def before_step(self, step: int, steps: int) -> None:
        """Store the number of the step, which seeds the choice of negatives."""
        self.step = step

    def forward(self, batch: Batch) -> Loss:
        """Return the loss (1 - gamma) mean(-V(o_0)) + log mean exp(-(r + gamma V(o_k+1) - V(o_k))), plus penalties.

        V is the value, o_0 the first frame of a clip, o_k and o_k+1 are consecutive frames, and gamma is the discount.
        The reward r is 0 at the goal and -1 before it. The penalties are on the norms of embeddings.
        If `num_negatives` is not 0, a second log mean exp over frames of other videos is added.
        """
        view, gamma = batch.views[0], self.config.discount
        z = encode_clip(self.encoder, self.projector, view.pixels)
        valid, goal = view.valid.all(1), z[:, 3]
        v_first, v_now, v_next = (rowwise_similarity(z[:, i], goal) for i in range(3))
        reward = -(view.time_seconds[:, 1] != view.time_seconds[:, 3]).to(z.dtype)
        start = (gamma - 1) * v_first + length_penalty(z, l1=self.config.l1_weight, l2=self.config.l2_weight)
        way = log_mean_exp(-(reward + gamma * v_next - v_now), valid)
        if self.config.num_negatives:
            others, known = draw_other_clips(z, valid, count=self.config.num_negatives, step=self.step)
            u_now, u_next = (rowwise_similarity(others[:, :, i], goal[:, None]) for i in (1, 2))
            way = way + log_mean_exp(1 - gamma * u_next + u_now, known & valid[:, None])
        means = global_means(
            {
                "start": mean_where(start, valid),
                # Share of the clips in which o_k+1 is nearer to the goal than o_k.
                "accuracy": mean_where((v_next > v_now).to(z.dtype), valid),
                "chance": mean_where(torch.full_like(v_now, 0.5), valid),
                "distance": mean_where(-v_first.detach(), valid),
            }
        )
        return Loss(means.pop("start") + way, means, outputs=(z[:, 0].detach(), goal.detach()))
