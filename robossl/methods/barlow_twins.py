"""Barlow Twins: drive the cross-correlation of two views' outputs to the identity (arXiv:2103.03230).

The gradient is that of the global batch's loss. In the authors' code it is divided by the number of GPUs, because their
all-reduce has no backward pass. To use their weight decay and their learning rate of biases and norms here, scale them
as in configs/barlow_twins_resnet50_imagenet.yaml. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from robossl.common import ranks
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, without_autocast
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class BarlowTwinsConfig:
    """Barlow Twins with the paper's numbers."""

    redundancy_weight: float = 0.005  # lambda in section 2.2; official code: 0.0051
    projector_layers: int = 3  # section 2.2
    hidden_dim: int = 8192  # section 2.2
    output_dim: int = 8192  # section 2.2
    view: ViewSpec = VIEW
    blur_p: tuple[float, float] = BLUR_P  # probability of blur in each of the two views; replaces view.blur_p
    solarize_p: tuple[float, float] = SOLARIZE_P  # probability of solarization in each view; replaces view.solarize_p

    def __post_init__(self) -> None:
        if self.projector_layers < 1:
            raise InputError(f"projector_layers must be 1 or more, got {self.projector_layers}; the paper has 3")
        if self.redundancy_weight < 0:
            raise InputError(f"redundancy_weight must not be negative, got {self.redundancy_weight}; the paper: 0.005")

    def build(self, encoder: Encoder) -> BarlowTwins:
        """Return the method with these settings, which trains `encoder`."""
        return BarlowTwins(encoder, self)


def redundancy(c: Float[Tensor, "d d"], *, weight: float) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the two terms of the paper's equation 1: sum (1 - c_ii)^2, and weight * sum c_ij^2 off the diagonal.

    With several ranks, pass the cross-correlation over the global batch; every rank then gets the same, global value.
    """
    squares = c.square()
    on_diagonal = (1 - c.diagonal()).square().sum()
    return on_diagonal, weight * (squares.sum() - squares.diagonal().sum())


class BarlowTwins(Method):
    """Barlow Twins loss on the cross-correlation of the two views over the global batch."""

    shared_in_batch = ("correlations",)

    def __init__(self, encoder: Encoder, config: BarlowTwinsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        dims = [encoder.feature_dim, *[config.hidden_dim] * (config.projector_layers - 1), config.output_dim]
        self.projector = mlp(dims, last_bias=False)
        self.norm = nn.BatchNorm1d(config.output_dim, affine=False)  # statistics of the global batch

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames): the first is always blurred, the second is sometimes solarized."""
        return pair_of(self.config.view, blur_p=self.config.blur_p, solarize_p=self.config.solarize_p)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's algorithm 1; batch-norm takes its statistics from each view separately."""
        z0, z1 = (full_precision(self.projector(self.encoder(view.pixels).pooled)) for view in batch.views)
        with without_autocast(z0):
            c = ranks.all_reduce_mean(self.norm(z0).T @ self.norm(z1) / len(z0))
        on_diagonal, off_diagonal = redundancy(c, weight=self.config.redundancy_weight)
        metrics = {"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()}
        return Loss(on_diagonal + off_diagonal, metrics, outputs=(z0.detach(), z1.detach()))
