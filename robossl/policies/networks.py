"""Networks that are trained with a policy: an encoder that is fine-tuned, and a small ConvNet from scratch."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from robossl.encoders.encoder import Encoder
from robossl.encoders.layers import freeze_stages, layer_numbers
from robossl.errors import InputError
from robossl.policies.policy import TrainedVision

Tune = Literal["frozen", "last", "all"]


class TunedEncoder(TrainedVision):
    """A copy of an encoder whose last stage, or all of it, trains with the policy.

    Its batch-norms keep their statistics, because batches of few scenes would replace them by those of few scenes.

    Args:
        encoder: The encoder; it stays as it is.
        tune: Train the last stage or all.
        reads: The output that the policy's head reads.

    Raises:
        InputError: the backbone does not say what its stages are, or has only one.
    """

    lr = 1e-4

    def __init__(self, encoder: Encoder, tune: Tune, reads: Literal["pooled", "dense"]) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(True)
        self._reads = reads
        if tune == "last":
            name = encoder.config.backbone
            stages = max(layer_numbers(self.encoder.backbone, name=name, stages=True).values())
            freeze_stages(self.encoder.backbone, stages - 1, name=name)
        with torch.no_grad():
            blank = torch.zeros(1, 3, *encoder.config.input_hw)
            self.shape = tuple(getattr(self.encoder.eval()(blank), reads).shape[1:])

    def train(self, mode: bool = True) -> TunedEncoder:
        """Set the mode of this module; the encoder stays in eval mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n ..."]:
        """Return the output that the head reads."""
        features = self.encoder(self.encoder.preprocess(frames))
        out: Tensor = features.pooled if self._reads == "pooled" else features.dense
        return out.float()


class SmallConvNet(TrainedVision):
    """Four convolutions and a linear layer, trained from scratch, as in DrQ (arXiv:2004.13649) with wider strides."""

    lr = 1e-3

    def __init__(self, hw: tuple[int, int]) -> None:
        super().__init__()
        widths = (3, 32, 32, 64, 64)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        cells = [-(-size // 16) for size in hw]
        self.project = nn.Sequential(nn.Linear(64 * cells[0] * cells[1], 128), nn.LayerNorm(128))
        self.shape = (128,)

    def forward(self, frames: UInt8[Tensor, "n h w 3"]) -> Float[Tensor, "n d"]:
        """Return a vector for each frame."""
        pixels = frames.permute(0, 3, 1, 2).float() / 255 - 0.5
        out: Tensor = self.project(self.layers(pixels))
        return out


def check_tune(tune: Tune, source: str) -> None:
    """Refuse to fine-tune an encoder whose weights are not at hand.

    Raises:
        InputError: the encoder is a server's or an ONNX model.
    """
    if tune != "frozen" and (source.startswith(("grpc://", "projector:")) or source.endswith(".onnx")):
        raise InputError(
            f"--tune {tune} needs weights that can be trained, and {source} has none; use --tune frozen, or name the "
            "run or encoder folder that it was exported from"
        )
