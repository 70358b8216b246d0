"""SimCLR: the other samples of the batch are the negatives (arXiv:2002.05709).

The loss is the paper's mean over the 2N anchors. The official code adds the means of two halves, which gives twice our
value. Each view (augmented frame) is made by torchvision's operations, with the strengths of appendix A. The operations
of SimCLR's own code differ: contrast is changed about the mean of each channel, saturation is changed in HSV, and blur
pads with zeros. Set `view: {colour: simclr}` to use these operations. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, cat, nn

from robossl.common import ranks
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, nt_xent
from robossl.views import Batch, ViewSpec

VIEW = ViewSpec(  # appendix A, colour strength 1
    scale=(0.08, 1.0),
    interpolation="bicubic",
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
)


@dataclass(frozen=True, slots=True)
class SimCLRConfig:
    """SimCLR with the paper's numbers."""

    temperature: float = 0.1  # table 5
    projector_layers: int = 2  # section 2.1; SimCLR v2 has 3 (arXiv:2006.10029)
    output_dim: int = 128  # section 2.1; hidden layers are as wide as the feature
    head: Literal["paper", "official"] = "paper"  # official: batch-norm in and after the head, initial std 0.01
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InputError(f"temperature must be positive, got {self.temperature}; the paper has 0.1")
        if self.projector_layers < 1:
            raise InputError(f"projector_layers must be 1 or more, got {self.projector_layers}; the paper has 2")

    def build(self, encoder: Encoder) -> SimCLR:
        """Return the method with these settings, which trains `encoder`."""
        return SimCLR(encoder, self)


class SimCLR(Method):
    """NT-Xent: the views of a sample attract each other and repel the views of all other samples of all ranks."""

    shared_in_batch = ("negatives",)

    def __init__(self, encoder: Encoder, config: SimCLRConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = _projector(encoder.feature_dim, config)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames) with equal settings."""
        return (self.config.view, self.config.view)

    def forward(self, batch: Batch) -> Loss:
        """Return NT-Xent over the global batch; both views share batch-norm statistics, as in the official code."""
        pixels = cat([view.pixels for view in batch.views])
        z: Float[Tensor, "2*b d"] = full_precision(self.projector(self.encoder(pixels).pooled))
        z0, z1 = z.chunk(2)
        everyone = (ranks.gather(z0), ranks.gather(z1))
        loss = nt_xent((z0, z1), everyone=everyone, first=ranks.rank() * len(z0), temperature=self.config.temperature)
        return Loss(loss, metrics={}, outputs=(z0.detach(), z1.detach()))


def _projector(feature_dim: int, config: SimCLRConfig) -> nn.Sequential:
    dims = [feature_dim] * config.projector_layers + [config.output_dim]
    if config.head == "official":
        return mlp(dims, norm="affine", last_norm="scale", init_std=0.01)
    return mlp(dims, norm="none", last_norm="none")
