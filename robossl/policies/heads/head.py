"""The interface of a head: it turns the features of one frame into a vector for the policy."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn


class PolicyHead(nn.Module):
    """A head. It is trained with the policy, gets standardised features, and its output goes to the policy's MLP.

    Attributes:
        reads: The encoder's output that the head reads: pooled (d) or dense (c, h, w).
        dim: Length of the vector that the head returns.
    """

    reads: ClassVar[Literal["pooled", "dense"]]
    dim: int

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Make the head for features of this shape; weights are drawn from torch's global generator."""
        super().__init__()
        self.shape = shape

    def forward(self, features: Float[Tensor, "n ..."]) -> Float[Tensor, "n d"]:
        """Return a vector for each frame."""
        raise NotImplementedError
