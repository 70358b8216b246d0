"""Standardise the targets of distillation, with moments of the first steps of a run."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from robossl.common.ranks import all_reduce_sum
from robossl.methods.parts.losses import without_autocast
from robossl.methods.parts.teacher import HostCounts

Standard = Literal["phi_s", "channel", "none"]
"""phi_s: one scale for all channels, after a rotation; channel: a scale for each channel; none: change nothing."""

LEAST_SCALE = 0.01  # of a channel that hardly varies, as a share of the root of the mean variance


class Standardiser(HostCounts):
    """Shift and scale rows, so that every channel has mean 0 and variance 1 over the rows of the first steps.

    With "phi_s" (arXiv:2410.01680), rows are rotated so that all channels have equal variance, then divided by one
    number: an error counts the same in every direction. The rotation is not the paper's (PCA, then a Hadamard matrix,
    which exists for few widths), but a product of plane rotations with the same property.

    A step uses the moments of the steps before it. The first step uses none. All ranks have the same moments. They are
    buffers, so a resumed run goes on exactly.

    Args:
        dim: Width of the rows.
        kind: How to standardise.
        steps: Number of steps that moments are taken from.
    """

    num_steps: Tensor
    num_rows: Tensor
    total: Tensor
    products: Tensor
    mean: Tensor
    scale: Tensor
    rotation: Tensor | None

    def __init__(self, dim: int, *, kind: Standard, steps: int) -> None:
        super().__init__()
        self.kind, self.steps = kind, steps if kind != "none" else 0
        sums = (dim, dim) if kind == "phi_s" else (dim,)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.float64))
        self.register_buffer("total", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(sums, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("rotation", torch.eye(dim) if kind == "phi_s" else None)

    @property
    def is_open(self) -> bool:
        """Whether moments are still being collected."""
        return self.count("num_steps") < self.steps

    def forward(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return standardised rows."""
        with without_autocast(rows):
            rows = (rows.to(self.mean.dtype) - self.mean) / self.scale
            return rows if self.rotation is None else rows @ self.rotation.T

    def invert(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the rows that `forward` turns into these rows."""
        return (rows if self.rotation is None else rows @ self.rotation) * self.scale + self.mean

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "n d"]) -> None:
        """Add the step's rows of all ranks to the moments; after `steps` calls, do nothing."""
        if not self.is_open:
            return
        rows = rows.to(self.total.dtype)
        self.add_count("num_steps", 1)
        self.num_rows += all_reduce_sum(torch.full_like(self.num_rows, len(rows)))
        self.total += all_reduce_sum(rows.sum(0))
        self.products += all_reduce_sum(rows.T @ rows if self.kind == "phi_s" else rows.square().sum(0))
        mean = self.total / self.num_rows
        self.mean.copy_(mean)
        if self.rotation is None:
            variance = (self.products / self.num_rows - mean.square()).clamp_min(0)
            self.scale.copy_(variance.clamp_min(LEAST_SCALE**2 * variance.mean()).sqrt())
        else:
            covariance = self.products / self.num_rows - torch.outer(mean, mean)
            self.scale.copy_(covariance.diagonal().mean().sqrt())
            if not self.is_open:
                self.rotation.copy_(equal_variances(covariance))
        self.scale.masked_fill_(self.scale == 0, 1.0)


def equal_variances(covariance: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Return a rotation R for which R C R' has a constant diagonal.

    Each of d - 1 plane rotations gives the channel of least variance the mean variance, at the cost of the channel of
    largest variance (the constructive proof of the theorem of Schur and Horn).
    """
    rows = torch.cat([covariance, torch.eye(len(covariance)).to(covariance)], dim=1)  # R C R' and R, side by side
    dim, mean = len(covariance), float(covariance.diagonal().mean())
    for _ in range(dim - 1):
        variances = rows[:, :dim].diagonal()
        i, j = int(variances.argmin()), int(variances.argmax())
        low, high, between = float(variances[i]) - mean, float(variances[j]) - mean, float(rows[i, j])
        if high <= 1e-12 * mean:
            break
        root = (between**2 - low * high) ** 0.5  # low is at most 0, and high above it
        tangent = -low / (between + (root if between >= 0 else -root)) if low else 0.0
        cosine = (1 + tangent**2) ** -0.5
        turn = rows.new_tensor([[cosine, tangent * cosine], [-tangent * cosine, cosine]])
        rows[[i, j]] = turn @ rows[[i, j]]
        rows[:, [i, j]] = rows[:, [i, j]] @ turn.T
    return rows[:, dim:]
