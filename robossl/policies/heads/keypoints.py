"""keypoints: places in the feature map, by spatial softmax (arXiv:1509.06113), after a learned 1x1 convolution."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from robossl.encoders.encoder import spatial_softmax
from robossl.policies.heads.head import PolicyHead

KEYPOINTS = 32  # as in robomimic (arXiv:2108.03298)


class KeypointsHead(PolicyHead):
    """Spatial softmax: 32 learned maps, each read as the place (x, y) where it is largest."""

    reads: ClassVar[Literal["pooled", "dense"]] = "dense"

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.maps = nn.Conv2d(shape[0], KEYPOINTS, 1)
        self.dim = 2 * KEYPOINTS

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return x and y of each keypoint, from -1 to 1."""
        return spatial_softmax(self.maps(features)).flatten(1)
