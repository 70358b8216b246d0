"""PixPro: smooth each pixel over similar pixels and match it to the same place in the other view (arXiv:2011.10043).

The method is that of section 3.2 of the paper. A pixel is one cell of a feature map, and a view is an augmented frame.
The teacher is a moving average of the student. It is updated after the optimizer step; the official code updates it
before the next forward pass, which is equivalent. `variant: official` is the loss of the official code (zdaxie/PixPro).
There the output of the transform g is l2-normalised, the loss is twice the paper's, and pixels match by distance in
fractions of the frame. The instance branch (a loss between whole frames) pools after its heads, not before them.
docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder, Features
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.dense import bins, centre_bin, check_boxes, matched_views, pixel_projector
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, negative_cosine, unit, without_autocast
from robossl.methods.parts.schedule import cosine
from robossl.methods.parts.teacher import Ema, check_momentum
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.views import Batch, ViewSpec

VIEW_0, VIEW_1 = pair_of(VIEW, blur_p=BLUR_P, solarize_p=SOLARIZE_P)  # section 4.1: as in BYOL


@dataclass(frozen=True, slots=True)
class PixProConfig:
    """PixPro with the paper's numbers."""

    threshold: float = 0.7  # section 3.1, equation 1: largest distance of a match, in diagonals of a feature-map cell
    sharpness: float = 2.0  # gamma of equation 4 (section 3.2)
    # Number of layers of the transform g (section 3.2). Two layers have batch-norm and ReLU between them. With 0, g is
    # the identity.
    transform_layers: int = 1
    hidden_dim: int = 2048  # section 3.1; official code: 4096
    output_dim: int = 256  # section 3.1
    momentum: float = 0.99  # section 4.1; rises to 1 along a cosine
    variant: Literal["paper", "official"] = "paper"
    instance_weight: float = 0.0  # weight of the instance loss on whole frames; 1 in section 3.3
    view_0: ViewSpec = VIEW_0
    view_1: ViewSpec = VIEW_1

    def __post_init__(self) -> None:
        check_boxes(self.view_0, self.view_1)
        if self.threshold <= 0:
            raise InputError(f"threshold must be positive, got {self.threshold}; the paper has 0.7")
        if self.sharpness < 1:
            raise InputError(f"sharpness must be 1 or more, got {self.sharpness}; the paper has 2")
        if self.transform_layers not in (0, 1, 2):
            raise InputError(f"transform_layers must be 0, 1 or 2, got {self.transform_layers}; the paper has 1")
        check_momentum(self.momentum, paper=0.99)
        check_range(0, instance_weight=self.instance_weight)

    def build(self, encoder: Encoder) -> PixPro:
        """Return the method with these settings, which trains `encoder`."""
        return PixPro(encoder, self)


class PixPro(Method):
    """Consistency of the student's propagated (smoothed) pixels with the teacher's pixels of the same place.

    The student sees one view, the teacher the other.
    """

    def __init__(self, encoder: Encoder, config: PixProConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = pixel_projector(encoder.feature_dim, config.hidden_dim, config.output_dim)
        self.propagation = Propagation(config)
        self.instance = _Instance(encoder.feature_dim, config) if config.instance_weight else None
        self.teacher = Ema(*self._students())

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames) with different blur and solarization."""
        return (self.config.view_0, self.config.view_1)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's equation 5, -cos(y_i, x'_j) - cos(y_j, x'_i), averaged over matched pairs.

        i and j are matched pixels of the two views. y are the student's propagated pixels, x' the teacher's pixels. The
        mean over pairs is averaged over images.
        """
        first, second = batch.views
        features = [self.encoder(view.pixels) for view in batch.views]
        x0, x1 = (self.projector(each.dense) for each in features)
        with torch.no_grad():
            encoder, projector, *_ = self.teacher.copies
            teachers = [encoder(view.pixels) for view in batch.views]
            t0, t1 = (projector(each.dense) for each in teachers)
        official = self.config.variant == "official"
        a = matched_views((first, second), (x0, x1), threshold=self.config.threshold, in_fractions=official)
        loss = pixel_consistency(self.propagation(x0), bins(t1), a) + pixel_consistency(
            self.propagation(x1), bins(t0), a.mT
        )
        if official:
            loss = 2 * loss
        metrics = {"matched": a.any(dim=2).float().mean()}
        if self.instance is not None:
            between = self._between_frames(features, teachers)
            loss = loss + self.config.instance_weight * between
            metrics["instance_loss"] = between.detach()
        return Loss(loss, metrics, outputs=(centre_bin(x0).detach(), centre_bin(x1).detach()))

    def _between_frames(self, features: list[Features], teachers: list[Features]) -> Tensor:
        """Return BYOL's loss between whole frames. The variant "official" doubles this loss and the pixel loss."""
        assert self.instance is not None
        p0, p1 = (self.instance(each) for each in features)
        with torch.no_grad():
            z0, z1 = (self.instance.project(each, self.teacher.copies[2]) for each in teachers)
        loss = negative_cosine(p0, z1) + negative_cosine(p1, z0)
        return 2 * loss if self.config.variant == "official" else loss

    def after_step(self, progress: float) -> None:
        """Update the teacher's weights, a moving average of the student's; the momentum rises to 1."""
        momentum = cosine(self.config.momentum, 1.0, progress=progress)
        self.teacher.update(*self._students(), momentum=momentum)

    def _students(self) -> tuple[nn.Module, ...]:
        instance = () if self.instance is None else (self.instance.projector,)
        return (self.encoder, self.projector, *instance)


def pixel_consistency(
    y: Float[Tensor, "b n d"], x: Float[Tensor, "b m d"], matched: Bool[Tensor, "b n m"]
) -> Float[Tensor, ""]:
    """Return minus the cosine of matched pixels, averaged over the pairs of each image, then over images.

    An image without a pair counts as 0.
    The mean of the ranks' values is the loss of the global batch, so nothing is gathered.
    """
    with without_autocast(y):
        similarity = unit(y) @ unit(x).mT
    pairs = matched.sum(dim=(1, 2))
    return -((similarity * matched).sum(dim=(1, 2)) / pairs.clamp_min(1)).mean()


class Propagation(nn.Module):
    """Pixel propagation (equations 3, 4): y_i = sum_j max(cos(x_i, x_j), 0) ** gamma * g(x_j).

    x_i is pixel i of a view and y_i the smoothed pixel. The sum is over all pixels of the view. g is the transform, and
    gamma is `sharpness`.
    """

    def __init__(self, config: PixProConfig) -> None:
        super().__init__()
        dim = config.output_dim
        layers = {0: nn.Identity(), 1: nn.Conv2d(dim, dim, 1), 2: pixel_projector(dim, dim, dim)}
        self.transform = layers[config.transform_layers]
        self.sharpness, self.unit_values = config.sharpness, config.variant == "official"

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n c"]:
        """Return the smoothed pixels, row by row."""
        pixels, values = unit(bins(x)), full_precision(bins(self.transform(x)))
        with without_autocast(x):
            similarity = (pixels @ pixels.mT).clamp_min(0).pow(self.sharpness)
            return similarity @ (unit(values) if self.unit_values else values)


class _Instance(nn.Module):
    """Projector and predictor of the instance branch, the loss between whole frames.

    Their input is the pooled feature, or the feature map if the variant is "official".
    """

    def __init__(self, dim: int, config: PixProConfig) -> None:
        super().__init__()
        self.on_maps = config.variant == "official"
        head = pixel_projector if self.on_maps else _pooled_head
        self.projector = head(dim, config.hidden_dim, config.output_dim)
        self.predictor = head(config.output_dim, config.hidden_dim, config.output_dim)

    def forward(self, features: Features) -> Float[Tensor, "b o"]:
        """Return the prediction for each frame."""
        return self.project(features, self.projector, self.predictor)

    def project(self, features: Features, *heads: nn.Module) -> Float[Tensor, "b o"]:
        """Apply the heads and return one vector for each frame."""
        x = features.dense if self.on_maps else features.pooled
        for head in heads:
            x = head(x)
        return full_precision(x).mean((2, 3)) if self.on_maps else x


def _pooled_head(dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    return mlp([dim, hidden_dim, output_dim])
