"""MoCo v3: each view's queries find the other view's keys in the global batch (arXiv:2104.02057).

The key encoder is a slow copy of the encoder. It is updated after the optimizer step. The official code updates it
before each forward pass. Both give the same keys, because the update before the first forward pass averages two equal
networks. docs/methods.md lists the deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common import ranks
from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder, Features
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts import view_pairs as pairs
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, unit, without_autocast
from robossl.methods.parts.schedule import cosine
from robossl.methods.parts.teacher import Ema, check_momentum
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, pair_of
from robossl.methods.parts.vit import (
    draw_xavier,
    fix_positions,
    freeze_patch_projection,
    require_transformer,
    transformer_of,
)
from robossl.views import Batch, ViewSpec

VIEW = replace(pairs.VIEW, interpolation="bilinear")  # official code, which has scale 0.2 to 1 for ResNet-50


@dataclass(frozen=True, slots=True)
class MoCoV3Config:
    """MoCo v3 with the paper's numbers for vision transformers; a field that is None depends on the backbone."""

    temperature: float = 0.2  # section 5; official code: 1.0 for ResNet-50
    momentum: float = 0.99  # section 3; official code: 0.996 for 1000 epochs of ResNet-50
    hidden_dim: int = 4096  # section 5
    output_dim: int = 256  # section 5
    projector_layers: int | None = None  # None: 3 for a transformer (section 5), else 2 (official code)
    # Whether the predictor ends with a batch-norm; None: true for a transformer only (section 5, official code).
    predictor_last_norm: bool | None = None
    # Whether the class token, if there is one, is the feature. Pooling after the final norm is worse (table 5).
    class_token: bool = True
    freeze_patch_projection: bool | None = None  # section 4.1; None: true for a transformer, false for other backbones
    # Whether positions are fixed sines and cosines (section 5); None: true for a transformer with random weights.
    fixed_positions: bool | None = None
    # Whether to draw initial weights as the official code does; None: true for a transformer with random weights.
    xavier: bool | None = None
    view: ViewSpec = VIEW
    blur_p: tuple[float, float] = BLUR_P  # probability of blur in each of the two views; replaces view.blur_p
    solarize_p: tuple[float, float] = SOLARIZE_P  # probability of solarization in each view; replaces view.solarize_p

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise InputError(f"temperature must be positive, got {self.temperature}; the paper has 0.2")
        check_momentum(self.momentum, paper=0.99)
        check_range(1, projector_layers=self.projector_layers)

    def build(self, encoder: Encoder) -> MoCoV3:
        """Return the method with these settings, which trains `encoder`."""
        return MoCoV3(encoder, self)


def contrast(
    q: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], *, first: int, temperature: float
) -> Float[Tensor, ""]:
    """Return `ctr` of the paper's algorithm 1, a loss that is low if each query finds its key among all keys.

    The value is 2 tau times a cross-entropy, where tau is the temperature. The caller gathers the keys of all ranks
    without gradients, and passes the index of this rank's first sample in the global batch as `first`. The mean of the
    ranks' values is then the loss of the global batch.
    """
    own = torch.arange(len(q), device=q.device) + first
    with without_autocast(q):
        logits = unit(q) @ unit(keys).T / temperature
    return 2 * temperature * F.cross_entropy(logits, own)


class MoCoV3(Method):
    """Contrastive loss of each view's predictions against the keys that a slow copy makes from the other view."""

    shared_in_batch = ("negatives",)

    def __init__(self, encoder: Encoder, config: MoCoV3Config) -> None:
        super().__init__()
        _prepare(encoder, config)
        self.config = config
        self.encoder = encoder
        self.projector = _projector(encoder, config)
        self.keys = Ema(encoder, self.projector)
        self.predictor = _predictor(encoder, config)

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames): the first is always blurred, the second is sometimes solarized."""
        return pair_of(self.config.view, blur_p=self.config.blur_p, solarize_p=self.config.solarize_p)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's algorithm 1; batch-norm takes its statistics from each view separately."""
        x0, x1 = (view.pixels for view in batch.views)
        q0, q1 = (self.predictor(self.projector(self._feature(self.encoder(x)))) for x in (x0, x1))
        k0, k1 = self.encode_keys(x0), self.encode_keys(x1)
        first, temperature = ranks.rank() * len(q0), self.config.temperature
        loss = contrast(q0, k1, first=first, temperature=temperature)
        loss = loss + contrast(q1, k0, first=first, temperature=temperature)
        return Loss(loss, metrics={}, outputs=(q0.detach(), q1.detach()))

    @torch.no_grad()
    def encode_keys(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "n d"]:
        """Return the keys of all ranks, without gradients."""
        encoder, projector = self.keys.copies
        return ranks.gather(full_precision(projector(self._feature(encoder(pixels)))))

    def _feature(self, features: Features) -> Float[Tensor, "b d"]:
        return features.cls if self.config.class_token and features.cls is not None else features.pooled

    def after_step(self, progress: float) -> None:
        """Update the key encoder's weights, a moving average; the momentum rises to 1 along half a cosine."""
        momentum = cosine(self.config.momentum, 1.0, progress=progress)
        self.keys.update(self.encoder, self.projector, momentum=momentum)


def _prepare(encoder: Encoder, config: MoCoV3Config) -> None:
    """Prepare a vision transformer as configured: draw its weights, fix its positions, freeze its patch projection."""
    is_transformer = transformer_of(encoder) is not None
    from_random = is_transformer and encoder.config.init == "random"
    if from_random if config.xavier is None else config.xavier:
        draw_xavier(require_transformer(encoder, because="method.xavier"))
    if from_random if config.fixed_positions is None else config.fixed_positions:
        fix_positions(require_transformer(encoder, because="method.fixed_positions"))
    if is_transformer if config.freeze_patch_projection is None else config.freeze_patch_projection:
        freeze_patch_projection(require_transformer(encoder, because="method.freeze_patch_projection"))


def _projector(encoder: Encoder, config: MoCoV3Config) -> nn.Sequential:
    layers = config.projector_layers or (2 if transformer_of(encoder) is None else 3)
    return mlp([encoder.feature_dim, *[config.hidden_dim] * (layers - 1), config.output_dim], last_norm="plain")


def _predictor(encoder: Encoder, config: MoCoV3Config) -> nn.Sequential:
    wanted = config.predictor_last_norm
    last_norm = transformer_of(encoder) is not None if wanted is None else wanted
    dims = [config.output_dim, config.hidden_dim, config.output_dim]
    return mlp(dims, last_norm="plain" if last_norm else "none", last_bias=False)
