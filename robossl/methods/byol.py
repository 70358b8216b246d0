"""BYOL: predict what a slow copy of oneself says of another view (arXiv:2006.07733).

The copy follows after the optimizer's step, parameters only. The encoder exported is the one that is trained.
The strengths and probabilities of the views are table 6's; the operations are torchvision's, as in the methods that
took them over. BYOL's own code adds to brightness, changes contrast about each channel's mean and saturation in HSV,
and blurs with zeros beyond the border: `view: {colour: byol}`. Further deviations: docs/methods.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoder import Encoder
from robossl.heads import mlp
from robossl.losses import negative_cosine
from robossl.method import Loss, Method
from robossl.pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.schedule import cosine
from robossl.teacher import Ema, check_momentum
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class BYOLConfig:
    """BYOL with the paper's numbers."""

    momentum: float = 0.996  # section 3.2, 1000 epochs; official code: 0.99 for 100 and 300 epochs, 0.97 for 40
    hidden_dim: int = 4096  # section 3.2
    output_dim: int = 256  # section 3.2
    predictor: bool = True  # table 5b: without one it collapses
    target: Literal["ema", "fixed"] = "ema"  # fixed: a random network that never moves (table 5a: 18.8% top-1)
    view: ViewSpec = VIEW
    blur_p: tuple[float, float] = BLUR_P  # of the two views, in place of view.blur_p
    solarize_p: tuple[float, float] = SOLARIZE_P  # of the two views, in place of view.solarize_p

    def __post_init__(self) -> None:
        check_momentum(self.momentum, paper=0.996)

    def build(self, encoder: Encoder) -> BYOL:
        """Make the method around an encoder."""
        return BYOL(encoder, self)


def regression(q: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Equation 2 of the paper: the squared distance of two unit vectors, mean over the batch.

    Over ranks: the mean of the ranks' values is the global value; nothing needs to be gathered.
    """
    return 2 + 2 * negative_cosine(q, z)


class BYOL(Method):
    """The prediction from each view meets the target's projection of the other."""

    def __init__(self, encoder: Encoder, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = _head(encoder.feature_dim, config)
        self.target = Ema(encoder, self.projector)
        self.predictor = _head(config.output_dim, config) if config.predictor else nn.Identity()

    def views(self) -> tuple[ViewSpec, ...]:
        """Two views: one always blurred, one now and then solarized."""
        return pair_of(self.config.view, blur_p=self.config.blur_p, solarize_p=self.config.solarize_p)

    def forward(self, batch: Batch) -> Loss:
        """The symmetric loss; batch-norm sees each view on its own, as in the official code."""
        x0, x1 = (view.pixels for view in batch.views)
        z0, z1 = (self.projector(self.encoder(x).pooled) for x in (x0, x1))
        loss = regression(self.predictor(z0), self._project(x1)) + regression(self.predictor(z1), self._project(x0))
        return Loss(loss, metrics={}, outputs=(z0.detach(), z1.detach()))

    @torch.no_grad()
    def _project(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        encoder, projector = self.target.copies
        z: Tensor = projector(encoder(pixels).pooled)
        return z

    def after_step(self, progress: float) -> None:
        """The target follows, ever more slowly: tau goes from `momentum` to 1 by half a cosine (section 3.2)."""
        if self.config.target == "ema":
            tau = cosine(self.config.momentum, 1.0, progress=progress)
            self.target.update(self.encoder, self.projector, momentum=tau)


def _head(input_dim: int, config: BYOLConfig) -> nn.Sequential:
    return mlp([input_dim, config.hidden_dim, config.output_dim], last_bias=False)
