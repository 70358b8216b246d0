"""mlp: the policy reads the pooled feature as it is, as in R3M (arXiv:2203.12601) and VC-1 (arXiv:2303.18240)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from robossl.policies.heads.head import PolicyHead


class PooledHead(PolicyHead):
    """The pooled feature; the policy standardises it and has an MLP 256-256."""

    reads: ClassVar[Literal["pooled", "dense"]] = "pooled"

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        (self.dim,) = shape

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Return the features."""
        return features
