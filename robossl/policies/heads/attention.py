"""attention: learned queries attend to the cells of the feature map (attentive probe, arXiv:2404.08471)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from robossl.policies.heads.head import PolicyHead

WIDTH, QUERIES = 64, 4
OCTAVES = 3  # wavelengths of the code of a place: twice the map, the map, and half of it


class AttentionHead(PolicyHead):
    """Attention pooling: four learned queries over the cells of the feature map and their places."""

    reads: ClassVar[Literal["pooled", "dense"]] = "dense"
    places: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        channels, height, width = shape
        self.register_buffer("places", _code_places(height, width), persistent=False)
        self.cells = nn.Linear(channels + self.places.shape[1], 2 * WIDTH)  # keys and values
        self.queries = nn.Parameter(torch.randn(QUERIES, WIDTH) / math.sqrt(WIDTH))
        self.dim = QUERIES * WIDTH

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return what each query has read."""
        cells = features.flatten(2).transpose(1, 2)
        places = self.places.expand(len(cells), -1, -1)
        keys, values = self.cells(torch.cat([cells, places], 2)).chunk(2, dim=2)
        weights = (keys @ self.queries.T).softmax(1)  # (n, cells, queries)
        read: Tensor = (weights.transpose(1, 2) @ values).flatten(1)
        return read


def _code_places(height: int, width: int) -> Float[Tensor, "p k"]:
    """Return sines and cosines of the place of each cell, and the place itself, from -1 to 1."""
    y, x = ((2 * torch.arange(size) + 1) / size - 1 for size in (height, width))
    place = torch.stack(torch.meshgrid(y, x, indexing="ij"), 2).reshape(-1, 2)
    waves = [math.pi * 2**octave / 2 * place for octave in range(OCTAVES)]
    return torch.cat([place, *(torch.sin(each) for each in waves), *(torch.cos(each) for each in waves)], 1)
