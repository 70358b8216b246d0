"""Time-contrastive network on one view: near in time is near in space, far is far (arXiv:1704.06888, section 3.1).

A frame, a second within a window of it, and a third at least twice the window away, of the same video; a video too
short to have one counts nowhere in the triplet form. The paper gives no augmentation. Exported is the backbone's pooled
feature; the paper uses the embedding after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.encoder import Encoder
from robossl.errors import InputError
from robossl.method import Loss, Method
from robossl.ranges import check_range
from robossl.temporal import (
    Negatives,
    clip_view,
    contrast,
    encode_clip,
    mean_tally,
    mean_where,
    num_counted,
    pool_frames,
    shares,
    similarity,
)
from robossl.views import Batch, ClipSpec, View, ViewSpec

VIEW = ViewSpec(hflip_p=0.0, jitter_p=0.0, grayscale_p=0.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class TCNConfig:
    """Single-view TCN; where the paper is silent, the numbers are those of the public re-implementation."""

    window_seconds: float = 0.2  # the second frame lies within it, the third at least twice as far away
    form: Literal["triplet", "softmax"] = "triplet"
    margin: float = 2.0  # of the triplet, on squared distances
    temperature: float = 0.1  # of the softmax form, on cosines
    negatives: Negatives = "both"  # of the softmax form
    output_dim: int = 32  # section 4
    length: float = 10.0  # of every embedding in the triplet form; 0: as it comes, and the margin means little
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        for name in ("window_seconds", "margin", "temperature"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        check_range(0, length=self.length)
        clip_view(self.view, ClipSpec())

    def build(self, encoder: Encoder) -> TCN:
        """Make the method around an encoder."""
        return TCN(encoder, self)


class TCN(Method):
    """Distances of three frames of a clip: anchor, near, far."""

    takes_clips = True

    def __init__(self, encoder: Encoder, config: TCNConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.shared_in_batch = () if config.form == "triplet" or config.negatives == "same" else ("negatives",)
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)

    def views(self) -> tuple[ViewSpec, ...]:
        """One clip of three frames."""
        return (clip_view(self.config.view, ClipSpec(3, self.config.window_seconds, rule="near_and_far")),)

    def forward(self, batch: Batch) -> Loss:
        """The mean over the global batch of either form."""
        view = batch.views[0]
        z = encode_clip(self.encoder, self.projector, view.pixels)
        form = self._triplet if self.config.form == "triplet" else self._softmax
        has_far = _has_far(view)
        loss, metrics = form(z, view, has_far)
        weight = None if self.shared_in_batch else num_counted(has_far)
        return Loss(loss, metrics, outputs=(z[:, 0].detach(), z[:, 1].detach()), weight=weight)

    def _triplet(self, z: Tensor, view: View, has_far: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """max(0, margin + |a - near|^2 - |a - far|^2), where there is a far frame."""
        if self.config.length:
            z = self.config.length * F.normalize(z, dim=-1)
        anchor, near, far = z.unbind(1)
        gap = (anchor - near).square().sum(1) - (anchor - far).square().sum(1)
        means = shares(
            {
                "loss": mean_where(F.relu(self.config.margin + gap), has_far),
                "accuracy": mean_where((gap < 0).to(gap.dtype), has_far),
                "chance": mean_where(torch.full_like(gap, 0.5), has_far),
                "has_far": mean_where(has_far.to(gap.dtype), torch.ones_like(has_far)),
            }
        )
        return means.pop("loss"), means

    def _softmax(self, z: Tensor, view: View, has_far: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """-log softmax(cos(a, .) / T)[near] over the own far frame and all others' near and far ones."""
        valid = torch.stack([view.valid[:, :2].all(1), has_far], 1)
        pool = pool_frames(z[:, 1:], view.time_seconds[:, 1:], valid)
        near = pool.own[:, 0]
        logits = similarity(z[:, 0], pool.z, "cosine", self.config.temperature)
        tally = contrast(logits, pool, anchor=near, positive=near, negatives=self.config.negatives)
        return mean_tally([tally], {"near": tally})


def _has_far(view: View) -> Tensor:
    """Whether a clip has a far frame that is another one: in a pause the store keeps one frame."""
    anchor, near, far = view.time_seconds.unbind(1)
    return view.valid[:, 2] & (far != anchor) & (far != near)
