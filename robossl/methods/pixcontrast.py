"""PixContrast: find for each pixel the pixels of the same place in the other view (arXiv:2011.10043, section 3.1).

A pixel is one cell of a feature map, and a view is an augmented frame. A moving average of the encoder encodes the
other view. This average is updated after the optimizer step. The authors' code does not contain this method.
docs/methods.md lists the deviations from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.dense import bins, centre_bin, check_boxes, matched_views, pixel_projector
from robossl.methods.parts.losses import unit, without_autocast
from robossl.methods.parts.schedule import cosine
from robossl.methods.parts.teacher import Ema, check_momentum
from robossl.methods.pixpro import VIEW_0, VIEW_1
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class PixContrastConfig:
    """PixContrast with the paper's numbers."""

    threshold: float = 0.7  # section 3.1, equation 1: largest distance of a match, in diagonals of a feature-map cell
    temperature: float = 0.3  # section 3.1, equation 2
    hidden_dim: int = 2048  # section 3.1
    output_dim: int = 256  # section 3.1
    momentum: float = 0.99  # section 4.1; rises to 1 along a cosine
    view_0: ViewSpec = VIEW_0
    view_1: ViewSpec = VIEW_1

    def __post_init__(self) -> None:
        check_boxes(self.view_0, self.view_1)
        if self.threshold <= 0:
            raise InputError(f"threshold must be positive, got {self.threshold}; the paper has 0.7")
        if self.temperature <= 0:
            raise InputError(f"temperature must be positive, got {self.temperature}; the paper has 0.3")
        check_momentum(self.momentum, paper=0.99)

    def build(self, encoder: Encoder) -> PixContrast:
        """Return the method with these settings, which trains `encoder`."""
        return PixContrast(encoder, self)


class PixContrast(Method):
    """Contrastive loss between each view's pixels and the averaged encoder's pixels of the other view."""

    def __init__(self, encoder: Encoder, config: PixContrastConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = pixel_projector(encoder.feature_dim, config.hidden_dim, config.output_dim)
        self.teacher = Ema(encoder, self.projector)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames) with different blur and solarization."""
        return (self.config.view_0, self.config.view_1)

    def forward(self, batch: Batch) -> Loss:
        """Return the paper's equation 2 for the pixels of each view, averaged over the two views."""
        first, second = batch.views
        x0, x1 = (self.projector(self.encoder(view.pixels).dense) for view in batch.views)
        with torch.no_grad():
            encoder, projector = self.teacher.copies
            t0, t1 = (projector(encoder(view.pixels).dense) for view in batch.views)
        a = matched_views((first, second), (x0, x1), threshold=self.config.threshold)
        t = self.config.temperature
        loss = (
            pixel_contrast(bins(x0), bins(t1), a, temperature=t)
            + pixel_contrast(bins(x1), bins(t0), a.mT, temperature=t)
        ) / 2
        metrics = {"matched": a.any(dim=2).float().mean()}
        return Loss(loss, metrics, outputs=(centre_bin(x0).detach(), centre_bin(x1).detach()))

    def after_step(self, progress: float) -> None:
        """Update the averaged encoder, a moving average of the encoder; the momentum rises to 1."""
        momentum = cosine(self.config.momentum, 1.0, progress=progress)
        self.teacher.update(self.encoder, self.projector, momentum=momentum)


def pixel_contrast(
    x: Float[Tensor, "b n d"], other: Float[Tensor, "b m d"], matched: Bool[Tensor, "b n m"], *, temperature: float
) -> Float[Tensor, ""]:
    """Return -log(sum of exp over a pixel's matches / sum of exp over all pixels of the other view).

    exp is taken of cosine / temperature. The value is averaged over the pixels of an image, then over images. Pixels
    without a match do not count. An image without a match counts as 0. The mean of the ranks' values is the loss of the
    global batch. Pixels of other images are not negatives, so nothing is gathered.
    """
    with without_autocast(x):
        logits = unit(x) @ unit(other).mT / temperature
    has_match = matched.any(dim=2)
    # If a pixel has no match, nothing is masked, so its loss is 0.
    found = logits.masked_fill(~(matched | ~has_match.unsqueeze(2)), -torch.inf)
    losses = logits.logsumexp(dim=2) - found.logsumexp(dim=2)
    return (losses.sum(dim=1) / has_match.sum(dim=1).clamp_min(1)).mean()
