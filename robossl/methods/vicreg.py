"""VICReg: views agree, every channel varies over the batch, no two channels covary (arXiv:2105.04906).

The weights are those of the official code. It averages the variance term over the two branches and the invariance term
over channels, but equation 6 of the paper sums both. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from robossl.common import ranks
from robossl.common.checks import check_positive
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, without_autocast
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.views import Batch, ViewSpec


@dataclass(frozen=True, slots=True)
class VICRegConfig:
    """VICReg with the paper's numbers."""

    invariance_weight: float = 25.0  # lambda, section 4.2
    variance_weight: float = 25.0  # mu, section 4.2; with 0, training collapses (table 7)
    covariance_weight: float = 1.0  # nu, section 4.2
    target_std: float = 1.0  # gamma, section 4.1
    epsilon: float = 1e-4  # section 4.1
    # How to combine the variance terms of the two views. The official code takes the mean, equation 6 the sum.
    variance_over: Literal["mean", "sum"] = "mean"
    expander_layers: int = 3  # section 4.2
    hidden_dim: int = 8192  # section 4.2
    output_dim: int = 8192  # section 4.2
    view: ViewSpec = VIEW
    blur_p: tuple[float, float] = BLUR_P  # probability of blur in each of the two views; replaces view.blur_p
    solarize_p: tuple[float, float] = SOLARIZE_P  # probability of solarization in each view; replaces view.solarize_p

    def __post_init__(self) -> None:
        weights = (self.invariance_weight, self.variance_weight, self.covariance_weight)
        if min(weights) < 0:
            raise InputError(f"the three weights must not be negative, got {weights}; the paper has 25, 25, 1")
        check_positive(target_std=self.target_std, epsilon=self.epsilon)
        if self.expander_layers < 1:
            raise InputError(f"expander_layers must be 1 or more, got {self.expander_layers}; the paper has 3")

    def build(self, encoder: Encoder) -> VICReg:
        """Return the method with these settings, which trains `encoder`."""
        return VICReg(encoder, self)


def variance(z: Float[Tensor, "n d"], *, target_std: float, epsilon: float) -> Float[Tensor, ""]:
    """Return the paper's equations 1, 2: how far each channel's std is below `target_std`, averaged over channels.

    With several ranks, gather z with gradients before calling this function or `covariance`. Every rank then gets the
    global value.
    """
    return F.relu(target_std - (z.var(dim=0) + epsilon).sqrt()).mean()


def covariance(z: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """Return the paper's equations 3, 4: squared covariances of different channels, summed and divided by d."""
    centred = z - z.mean(dim=0)
    with without_autocast(z):
        squares = (centred.T @ centred / (len(z) - 1)).square()
    return (squares.sum() - squares.diagonal().sum()) / z.shape[1]


class VICReg(Method):
    """Loss of three terms: invariance between the views, variance and covariance of each view over the global batch."""

    shared_in_batch = ("variances and covariances",)

    def __init__(self, encoder: Encoder, config: VICRegConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        dims = [encoder.feature_dim, *[config.hidden_dim] * (config.expander_layers - 1), config.output_dim]
        self.expander = mlp(dims, last_bias=False)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames): the first is always blurred, the second is sometimes solarized."""
        return pair_of(self.config.view, blur_p=self.config.blur_p, solarize_p=self.config.solarize_p)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's equation 6; batch-norm takes its statistics from each view separately."""
        config = self.config
        z0, z1 = (full_precision(self.expander(self.encoder(view.pixels).pooled)) for view in batch.views)
        everyone = (ranks.gather(z0), ranks.gather(z1))
        s = F.mse_loss(z0, z1)
        v = torch.stack([variance(z, target_std=config.target_std, epsilon=config.epsilon) for z in everyone])
        v = v.mean() if config.variance_over == "mean" else v.sum()
        c = covariance(everyone[0]) + covariance(everyone[1])
        loss = config.invariance_weight * s + config.variance_weight * v + config.covariance_weight * c
        metrics = {"invariance": s.detach(), "variance": v.detach(), "covariance": c.detach()}
        return Loss(loss, metrics, outputs=(z0.detach(), z1.detach()))
