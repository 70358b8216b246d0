"""Time-contrastive network on one view: frames near in time get near embeddings (arXiv:1704.06888, section 3.1).

A sample is three frames of one video: an anchor, a near frame at most one window (`window_seconds`) away from it, and a
far frame at least two windows away. The exported encoder returns the backbone's pooled feature. The paper uses the
output of the projector that follows it. docs/methods.md names the source of the numbers and lists the deviations from
the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.losses import without_autocast
from robossl.methods.parts.temporal import (
    FramePool,
    Negatives,
    clip_view,
    contrast,
    count_pairs,
    count_true,
    encode_clip,
    global_means,
    mean_over_pairs,
    mean_where,
    pool_frames,
    similarity,
)
from robossl.views import Batch, ClipSpec, View, ViewSpec

VIEW = ViewSpec(hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class TCNConfig:
    """Single-view TCN with the numbers of the authors' code: tensorflow/models, research/tcn/configs/tcn_default.yml.

    The softmax form of the loss is ours, and so are its numbers.
    """

    window_seconds: float = 0.2  # largest time from the anchor to the near frame; 6 frames at 29 frames/s
    form: Literal["triplet", "softmax"] = "triplet"
    # How to choose the negatives of the triplet loss. "none" takes the far frame of the same clip (section 3.1).
    # Configurations from before this option existed have "none".
    mining: Literal["semi_hard", "none"] = field(default="semi_hard", metadata={"before": "none"})
    margin: float = 0.2  # margin of the triplet loss, in squared distances
    temperature: float = 0.1  # in the softmax form, cosines are divided by the temperature
    negatives: Negatives = "both"  # which clips the negatives come from, in mining and in the softmax form
    output_dim: int = 32
    length: float = 1.0  # length of embeddings in the triplet form; 0: not normalised, so the margin means little
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        for name in ("window_seconds", "margin", "temperature"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        check_range(0, length=self.length)
        clip_view(self.view, ClipSpec())

    def build(self, encoder: Encoder) -> TCN:
        """Return the method with these settings, which trains `encoder`."""
        return TCN(encoder, self)


def semi_hard(
    distance: Float[Tensor, "p n"], positive: Float[Tensor, " p"], negative: Bool[Tensor, "p n"]
) -> Float[Tensor, " p"]:
    """Return the distance of each pair's semi-hard negative from its anchor; 0 for a pair without a negative.

    The semi-hard negative is the nearest of the negatives that are farther away than the positive. If there is none, it
    is the farthest negative. With several ranks, gather the candidates with gradients first.

    Args:
        distance: distance of each pair's anchor from every candidate.
        positive: distance of each pair's anchor from its positive.
        negative: which candidates are negatives of the pair.
    """
    beyond = negative & (distance > positive[:, None])
    nearest = distance.masked_fill(~beyond, torch.inf).amin(1)
    farthest = distance.masked_fill(~negative, -torch.inf).amax(1)
    found = torch.where(beyond.any(1), nearest, farthest)
    return torch.where(negative.any(1), found, torch.zeros_like(found))


class TCN(Method):
    """Triplet or softmax loss on the anchor, near and far frame of each clip."""

    takes_clips = True

    def __init__(self, encoder: Encoder, config: TCNConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        compares = config.form == "softmax" or config.mining == "semi_hard"
        self.shared_in_batch = ("negatives",) if compares and config.negatives != "same" else ()
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return one clip of three frames."""
        return (clip_view(self.config.view, ClipSpec(3, self.config.window_seconds, rule="near_and_far")),)

    def forward(self, batch: Batch) -> Loss:
        """Return the triplet or softmax loss, as configured, averaged over the global batch."""
        view = batch.views[0]
        z = encode_clip(self.encoder, self.projector, view.pixels)
        form = self._triplet if self.config.form == "triplet" else self._softmax
        loss, metrics, weight = form(z, view, _has_far(view))
        return Loss(loss, metrics, outputs=(z[:, 0].detach(), z[:, 1].detach()), weight=weight)

    def _triplet(self, z: Tensor, view: View, has_far: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the triplet loss, its metrics, and the number of pairs that have a negative.

        The loss of a pair is max(0, margin + |anchor - near|^2 - |anchor - negative|^2).
        """
        if self.config.length:
            z = self.config.length * F.normalize(z, dim=-1)
        anchor, near, far = z.unbind(1)
        gap = (anchor - near).square().sum(1) - (anchor - far).square().sum(1)
        hinges, counted = self._mined(z, view, has_far) if self.config.mining == "semi_hard" else (gap, has_far)
        losses = F.relu(self.config.margin + hinges)
        means = global_means(
            {
                "loss": mean_where(losses, counted),
                "active": mean_where((losses > 0).to(gap.dtype), counted),  # share of pairs whose loss is above 0
                "accuracy": mean_where((gap < 0).to(gap.dtype), has_far),
                "chance": mean_where(torch.full_like(gap, 0.5), has_far),
                "has_far": mean_where(has_far.to(gap.dtype), torch.ones_like(has_far)),
            }
        )
        return means.pop("loss"), means, count_true(counted)

    def _mined(self, z: Tensor, view: View, has_far: Tensor) -> tuple[Tensor, Tensor]:
        """Return |a - p|^2 - |a - n|^2 for the semi-hard negative n, and a mask of the pairs (a, p) that count.

        Each clip gives two pairs: its near frame is the positive p of its anchor frame a, and the reverse.
        """
        pool = pool_frames(z, view.time_seconds, torch.cat([view.valid[:, :2], has_far[:, None]], 1))
        both = pool.own[:, :2]
        pairs = both.flatten(), both.flip(1).flatten()
        distance = _squared_distances(pool.z[pairs[0]], pool.z)
        positive = distance.gather(1, pairs[1][:, None]).squeeze(1)
        negative = self._negatives(pool, pairs[0])
        counted = pool.valid[pairs[0]] & pool.valid[pairs[1]] & negative.any(1)
        # During a pause the store keeps one frame, so anchor and near frame may be equal. Such a pair does not count.
        counted = counted & (pool.moment[pairs[0]] != pool.moment[pairs[1]])
        return positive - semi_hard(distance, positive, negative), counted

    def _negatives(self, pool: FramePool, anchor: Tensor) -> Tensor:
        """Return a mask of each anchor's negatives, which the option `negatives` chooses.

        They are frames of other clips, frames of the anchor's clip that are at least two windows away from the anchor,
        or both.
        """
        same_clip = pool.clip[anchor, None] == pool.clip
        away = (pool.moment[anchor, None] - pool.moment).abs() >= 2 * self.config.window_seconds - 1e-6
        kinds = {"other": ~same_clip, "same": same_clip & away, "both": ~same_clip | away}
        return pool.valid & kinds[self.config.negatives]

    def _softmax(self, z: Tensor, view: View, has_far: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return the loss -log softmax(cos(a, .) / T)[near], metrics, and the number of pairs.

        `a` is the anchor, T the temperature. Negatives are the far frame of the same clip, the near and far frames of
        other clips, or both, as the option `negatives` says.
        """
        valid = torch.stack([view.valid[:, :2].all(1), has_far], 1)
        pool = pool_frames(z[:, 1:], view.time_seconds[:, 1:], valid)
        near = pool.own[:, 0]
        logits = similarity(z[:, 0], pool.z, "cosine", self.config.temperature)
        sums = contrast(logits, pool, anchor=near, positive=near, negatives=self.config.negatives)
        return *mean_over_pairs([sums], {"near": sums}), count_pairs([sums])


def _has_far(view: View) -> Tensor:
    """Return a mask of the clips whose far frame is neither the anchor nor the near frame.

    The three may be the same frame, because the store keeps a single frame of a pause.
    """
    anchor, near, far = view.time_seconds.unbind(1)
    return view.valid[:, 2] & (far != anchor) & (far != near)


def _squared_distances(a: Float[Tensor, "p d"], b: Float[Tensor, "n d"]) -> Float[Tensor, "p n"]:
    with without_autocast(a):
        return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
