"""BYOL: predict how a slow copy of the network projects the other view (arXiv:2006.07733).

The slow copy is the paper's target network. After each optimizer step its parameters move towards the trained
network's. Its buffers (such as batch-norm statistics) are not averaged. The exported encoder is that of the trained
network. Each view (augmented frame) is made by torchvision's operations, with the strengths and probabilities of table
6. MoCo v3, Barlow Twins and VICReg do the same. The operations of BYOL's own code differ: brightness adds a constant,
contrast is changed about the mean of each channel, saturation is changed in HSV, and blur pads with zeros. Set
`view: {colour: byol}` to use these operations. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import negative_cosine
from robossl.methods.parts.schedule import cosine
from robossl.methods.parts.teacher import Ema, check_momentum
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class BYOLConfig:
    """BYOL with the paper's numbers."""

    momentum: float = 0.996  # section 3.2, for 1000 epochs; official code: 0.99 for 100 and 300 epochs, 0.97 for 40
    hidden_dim: int = 4096  # section 3.2
    output_dim: int = 256  # section 3.2
    predictor: bool = True  # whether there is a predictor; without one, training collapses (table 5b)
    target: Literal["ema", "fixed"] = "ema"  # target network; fixed: random, never updated (table 5a: 18.8% top-1)
    view: ViewSpec = VIEW
    blur_p: tuple[float, float] = BLUR_P  # probability of blur in each of the two views; replaces view.blur_p
    solarize_p: tuple[float, float] = SOLARIZE_P  # probability of solarization in each view; replaces view.solarize_p

    def __post_init__(self) -> None:
        check_momentum(self.momentum, paper=0.996)

    def build(self, encoder: Encoder) -> BYOL:
        """Return the method with these settings, which trains `encoder`."""
        return BYOL(encoder, self)


def regression(q: Float[Tensor, "b d"], z: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    """Return the paper's equation 2: the mean squared distance of q and z after both are scaled to norm 1.

    The mean of the ranks' values is the loss of the global batch, so no embeddings are gathered.
    """
    return 2 + 2 * negative_cosine(q, z)


class BYOL(Method):
    """Symmetric loss between the prediction from each view and the target network's projection of the other view."""

    def __init__(self, encoder: Encoder, config: BYOLConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = _head(encoder.feature_dim, config)
        self.target = Ema(encoder, self.projector)
        self.predictor = _head(config.output_dim, config) if config.predictor else nn.Identity()

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames): the first is always blurred, the second is sometimes solarized."""
        return pair_of(self.config.view, blur_p=self.config.blur_p, solarize_p=self.config.solarize_p)

    def forward(self, batch: Batch) -> Loss:
        """Return the symmetric loss. As in the official code, batch-norm has separate statistics for each view."""
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
        """Update the target network's weights, a moving average of the trained network's. A fixed target stays as is.

        The target's momentum, tau in the paper, rises from `momentum` to 1 along half a cosine (section 3.2).
        """
        if self.config.target == "ema":
            tau = cosine(self.config.momentum, 1.0, progress=progress)
            self.target.update(self.encoder, self.projector, momentum=tau)


def _head(input_dim: int, config: BYOLConfig) -> nn.Sequential:
    return mlp([input_dim, config.hidden_dim, config.output_dim], last_bias=False)
