"""SimSiam: two views, a predictor and a stop-gradient (arXiv:2011.10566), with the paper's ablations.

docs/methods.md lists the deviations from the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.heads import Norm, mlp
from robossl.methods.parts.losses import negative_cosine, softmax_cross_entropy
from robossl.methods.parts.teacher import MovingAverageBank
from robossl.views import Batch, ViewSpec

VIEW = ViewSpec()  # the view of MoCo v2, as in section 3
SIMILARITIES = {"cosine": negative_cosine, "cross_entropy": softmax_cross_entropy}


@dataclass(frozen=True, slots=True)
class SimSiamConfig:
    """SimSiam with the paper's numbers; every ablation of section 4 is one field."""

    projector_layers: int = 3  # section 3; 2 on CIFAR (appendix D)
    projector_hidden_dim: int = 2048  # section 3
    output_dim: int = 2048  # section 3
    predictor_hidden_dim: int = 512  # section 3: a quarter of output_dim, a bottleneck
    head: Literal["paper", "official"] = "paper"  # official: the projector's last batch-norm has no scale and shift
    stop_gradient: bool = True  # figure 2
    predictor: Literal["none", "fixed", "mlp", "moving_average"] = "mlp"  # table 1; moving average: section 5.2
    predictor_lr_decays: bool = False  # table 1: a constant rate is better (68.1 % against 67.7 %)
    batch_norm: Literal["none", "hidden", "default", "all"] = "default"  # table 3
    similarity: Literal["cosine", "cross_entropy"] = "cosine"  # section 4.5
    symmetric: bool = True  # section 4.6; if off, only view 0 predicts the other view
    bank_momentum: float = 0.8  # section 5.2
    bank_size: int = 0  # number of frames in the store; needed only by predictor "moving_average"
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if self.projector_layers < 1:
            raise InputError(f"projector_layers must be 1 or more, got {self.projector_layers}; the paper has 3")
        check_range(0, 1, bank_momentum=self.bank_momentum)
        if self.predictor == "moving_average" and self.bank_size < 1:
            raise InputError(
                f"predictor moving_average keeps an average for each frame, got bank_size {self.bank_size}; "
                "set bank_size to the number of frames in the store"
            )

    def build(self, encoder: Encoder) -> SimSiam:
        """Return the method with these settings, which trains `encoder`."""
        return SimSiam(encoder, self)


class SimSiam(Method):
    """Loss that makes each view's prediction similar to the other view's projection, which gets no gradient."""

    def __init__(self, encoder: Encoder, config: SimSiamConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = _projector(encoder.feature_dim, config)
        self.predictor = _predictor(config)
        self.bank = _bank(config)
        constant = config.predictor == "mlp" and not config.predictor_lr_decays
        self.constant_lr = ("predictor.",) if constant else ()

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two views (augmented frames) with equal settings."""
        return (self.config.view, self.config.view)

    def forward(self, batch: Batch) -> Loss:
        """Return the loss; batch-norm takes its statistics from each view separately, as in the official code."""
        distance = SIMILARITIES[self.config.similarity]
        z0, z1 = (self.projector(self.encoder(view.pixels).pooled) for view in batch.views)
        t0, t1 = self._targets(batch.index, z0, z1)
        loss = distance(self.predictor(z0), t1)
        if self.config.symmetric:
            loss = (loss + distance(self.predictor(z1), t0)) / 2
        return Loss(loss, metrics={}, outputs=(z0.detach(), z1.detach()))

    def _targets(self, index: Tensor, z0: Tensor, z1: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.stop_gradient:
            z0, z1 = z0.detach(), z1.detach()
        if self.bank is None:
            return z0, z1
        t0, t1 = self.bank(index, z0), self.bank(index, z1)
        self.remember({"index": index, "average": (t0 + t1) / 2 if self.config.symmetric else t1})
        return t0, t1

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Store the new moving averages of the samples in the bank."""
        assert self.bank is not None
        self.bank.store(rows["index"], rows["average"])


def _projector(feature_dim: int, config: SimSiamConfig) -> nn.Sequential:
    dims = [feature_dim, *[config.projector_hidden_dim] * (config.projector_layers - 1), config.output_dim]
    hidden: Norm = "none" if config.batch_norm == "none" else "affine"
    output: Norm = "plain" if config.head == "official" else "affine"
    return mlp(dims, norm=hidden, last_norm=output if config.batch_norm in ("default", "all") else "none")


def _predictor(config: SimSiamConfig) -> nn.Module:
    if config.predictor in ("none", "moving_average"):
        return nn.Identity()
    hidden: Norm = "none" if config.batch_norm == "none" else "affine"
    output: Norm = "affine" if config.batch_norm == "all" else "none"
    predictor = mlp([config.output_dim, config.predictor_hidden_dim, config.output_dim], norm=hidden, last_norm=output)
    return predictor.requires_grad_(config.predictor == "mlp")


def _bank(config: SimSiamConfig) -> MovingAverageBank | None:
    if config.predictor != "moving_average":
        return None
    return MovingAverageBank(config.bank_size, config.output_dim, momentum=config.bank_momentum)
