"""CPC over the rows of an image: find the patches below, given those above (arXiv:1807.03748, section 3.2).

Overlapping patches go through the encoder one by one. For each patch, a convolution makes a context of its own row and
the rows above. The context predicts the patch k rows further down in the same column. An encoder with batch-norm is
refused, because shared statistics pass information from patch to patch. The paper removed batch-norm too. Unlike in the
paper, patches are not cropped and jittered one by one. The encoder learns on patches, but receives whole frames when it
is used. The authors have published no code. docs/methods.md lists the deviations from the paper and from the CPC of
Greedy InfoMax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from robossl.common.checks import check_positive, check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.losses import full_precision
from robossl.methods.parts.temporal import (
    FramePool,
    Negatives,
    PairSums,
    contrast,
    mean_over_pairs,
    pool_frames,
    similarity,
)
from robossl.views import Batch, ClipSpec, ViewSpec

# The view is grey, because colour is a shortcut (section 3.2).
VIEW = ViewSpec(size=256, scale=(0.7, 1.0), jitter_p=0.0, grayscale_p=1.0, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class CPCRowsConfig:
    """CPC on images with the paper's numbers: a 7 x 7 grid of 64-pixel patches that overlap by half."""

    patch_size: int = 64  # side of a patch, in pixels of the view
    patch_stride: int = 32
    steps: int = 5  # number of rows that are predicted from each patch
    # Number of rows below a patch that are not predicted, because they overlap with the patch.
    # CPC v2 (arXiv:1905.09272) and Greedy InfoMax have the same number.
    skip_rows: int = 1
    output_dim: int = 256  # width of projected patches; Greedy InfoMax uses the feature itself, 1024 wide
    context_layers: int = 5  # number of blocks, as in CPC v2; the paper says only "PixelCNN"
    negatives: Negatives = "both"  # which patches are negatives: those of other images, of the same image, or both
    temperature: float = 1.0
    allow_batch_norm: bool = False
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        check_range(0, skip_rows=self.skip_rows, context_layers=self.context_layers)
        check_positive(temperature=self.temperature)
        check_range(1, patch_stride=self.patch_stride)
        check_range(1, self.view.size, patch_size=self.patch_size)
        rows = (self.view.size - self.patch_size) // self.patch_stride + 1
        if not 1 <= self.steps <= rows - 1 - self.skip_rows:
            raise InputError(
                f"views of {self.view.size} pixels have {rows} rows of patches ({self.patch_size} pixels, "
                f"{self.patch_stride} apart): steps must be 1 to {rows - 1 - self.skip_rows}, got {self.steps}; "
                "lower steps, patch_size or patch_stride"
            )
        if self.view.clip != ClipSpec():
            raise InputError("cpc_rows takes single images; leave out method.view.clip, or use cpc for clips")

    def build(self, encoder: Encoder) -> CPCRows:
        """Return the method with these settings, which trains `encoder`."""
        if not self.allow_batch_norm and any(isinstance(layer, _BatchNorm) for layer in encoder.modules()):
            raise InputError(
                f"{encoder.config.backbone} has batch-norm, through which patches share information; choose one "
                "without (vit_tiny_patch16_224, convnext_atto, resnet50_gn) or set method.allow_batch_norm"
            )
        return CPCRows(encoder, self)


class RowsContext(nn.Module):
    """Residual blocks in which a patch sees its own row and the rows above, as in CPC v2."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, dim, (1, 3), padding=(0, 1)),
                nn.ReLU(),
                # Pad above the first row, so that the next convolution sees the row above and not the row below.
                nn.ZeroPad2d((0, 0, 1, 0)),
                nn.Conv2d(dim, dim, (2, 1)),
                nn.ReLU(),
                nn.Conv2d(dim, dim, 1),
            )
            for _ in range(layers)
        )

    def forward(self, z: Float[Tensor, "b r c d"]) -> Float[Tensor, "b r c d"]:
        """Return the context vector of every patch."""
        x = z.permute(0, 3, 1, 2)
        for block in self.blocks:
            x = x + block(F.relu(x))
        return x.permute(0, 2, 3, 1)


class CPCRows(Method):
    """InfoNCE loss: each prediction must find its patch among the patches of the global batch."""

    shared_in_batch = ("negatives",)

    def __init__(self, encoder: Encoder, config: CPCRowsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)
        self.context = RowsContext(config.output_dim, config.context_layers)
        # One layer holds the matrices W_k of all steps k.
        self.heads = nn.Linear(config.output_dim, config.steps * config.output_dim, bias=False)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return one view (augmented frame)."""
        return (self.config.view,)

    def encoder_sizes(self) -> set[int]:
        """Return the side of a patch in pixels, because the encoder's inputs are patches, not whole views."""
        return {self.config.patch_size}

    def forward(self, batch: Batch) -> Loss:
        """Return the mean of -log softmax(z W_k c)[row + k, same column] over all patches with a k-th row below.

        c is the context of a patch, W_k the matrix for k rows below, and z the embeddings of all patches.
        """
        z = self.patches(batch.views[0].pixels)
        predictions = self.heads(self.context(z)).unflatten(-1, (self.config.steps, -1))
        places = torch.arange(z.shape[1] * z.shape[2], device=z.device).expand(len(z), -1)
        pool = pool_frames(z.flatten(1, 2), places, torch.ones_like(places, dtype=torch.bool))
        first = self.config.skip_rows + 1
        sums = {
            f"row{k}": self._step(predictions[..., k - first, :], pool, k)
            for k in range(first, first + self.config.steps)
        }
        loss, metrics = mean_over_pairs(sums.values(), sums)
        return Loss(loss, metrics, outputs=(z[:, 0, 0].detach(), z[:, -1, -1].detach()))

    def patches(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b r c d"]:
        """Encode and project every patch."""
        size, stride = self.config.patch_size, self.config.patch_stride
        grid = pixels.unfold(2, size, stride).unfold(3, size, stride).permute(0, 2, 3, 1, 4, 5)
        z = full_precision(self.projector(self.encoder(grid.flatten(0, 2)).pooled))
        return z.reshape(*grid.shape[:3], -1)

    def _step(self, prediction: Tensor, pool: FramePool, k: int) -> PairSums:
        logits = similarity(prediction[:, :-k].flatten(0, 2), pool.z, "dot", self.config.temperature)
        own = pool.own.view(prediction.shape[:3])
        return contrast(
            logits,
            pool,
            anchor=own[:, :-k].flatten(),
            positive=own[:, k:].flatten(),
            negatives=self.config.negatives,
        )
