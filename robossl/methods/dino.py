"""DINO: from each crop, a student predicts the centred, sharpened output of its moving average (arXiv:2104.14294).

The moving average is the teacher. It is updated after the optimizer step, as in algorithm 1 of the paper, and it is the
network that is exported. The teacher's temperature rises with every step; the authors' code raises it once an epoch.
docs/methods.md lists further deviations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.losses import full_precision, without_autocast
from robossl.methods.parts.multicrop import cls_crops
from robossl.methods.parts.schedule import cosine
from robossl.methods.parts.teacher import Center, Ema, check_momentum
from robossl.methods.parts.view_pairs import BLUR_P, SOLARIZE_P, VIEW, pair_of
from robossl.methods.parts.vit import plain_bicubic, require_transformer, start_class_token
from robossl.views import Batch, ViewSpec

# The augmentation is BYOL's, but no global crop is smaller than 40 % of the frame.
GLOBAL_0, GLOBAL_1 = pair_of(replace(VIEW, scale=(0.4, 1.0)), blur_p=BLUR_P, solarize_p=SOLARIZE_P)
LOCAL = replace(GLOBAL_0, size=96, scale=(0.05, 0.4), blur_p=0.5)
MAX_WARMUP = 0.3  # longest warm-up of the teacher's temperature, as a share of the run's steps (as in lightly-train)
MAX_FREEZE = 0.1  # longest freeze of the last layer, as a share of the run's steps


@dataclass(frozen=True, slots=True)
class DINOConfig:
    """DINO with the paper's numbers. Numbers of steps are for the batch size 1024 (1250 steps per ImageNet epoch).

    The temperatures are those of the paper and of the authors' 300-epoch command. Their 100-epoch command has a
    constant teacher temperature of 0.04, as in configs/dino_vit_small_imagenet.yaml.
    """

    prototypes: int = 65536  # K in appendix C; use fewer if there are few images, see `for_num_images`
    hidden_dim: int = 2048  # section 3.1
    bottleneck_dim: int = 256  # appendix C
    head_batch_norm: bool = False  # section 3.1: no batch-norm in the head of a ViT
    norm_last_layer: bool = True  # whether prototypes keep norm 1; off in the authors' 300-epoch command for ViT-S
    transformer: Literal["timm", "official"] = "timm"  # official: set up a ViT as in the authors' code, see `_prepare`
    student_temperature: float = 0.1  # section 3.2
    teacher_temperature: float = 0.07  # section 3.2; lower than the student's, so that the targets are sharper
    teacher_temperature_start: float = 0.04  # section 3.2
    teacher_temperature_warmup_steps: int = 37_500  # section 3.2: 30 epochs; at most 0.3 of the run's steps
    freeze_last_layer_steps: int = 1250  # official code: one epoch; at most 0.1 of the run's steps
    center: bool = True  # whether to subtract a running mean, the centre, from the teacher's logits (section 5.3)
    center_momentum: float = 0.9  # value of the official code; appendix D compares values from 0 to 0.999
    momentum: float = 0.996  # section 3.1; rises to 1 along a cosine
    num_local_views: int = 8  # official code; table 8 compares 2 to 10
    global_view_0: ViewSpec = GLOBAL_0
    global_view_1: ViewSpec = GLOBAL_1
    local_view: ViewSpec = LOCAL

    def __post_init__(self) -> None:
        temperatures = (self.student_temperature, self.teacher_temperature, self.teacher_temperature_start)
        if min(temperatures) <= 0:
            raise InputError(f"temperatures must be positive, got {temperatures}; the paper has 0.1, 0.07 and 0.04")
        if self.prototypes < 2:
            raise InputError(f"prototypes must be 2 or more, got {self.prototypes}; the paper has 65536")
        if self.num_local_views < 0:
            raise InputError(f"num_local_views must be 0 or more, got {self.num_local_views}; the official code has 8")
        check_momentum(self.momentum, paper=0.996)
        check_range(0, 1, center_momentum=self.center_momentum)

    @classmethod
    def for_num_images(cls, num_images: int) -> DINOConfig:
        """Return settings that fit the number of images, as in lightly-train's table.

        With few images, most of 65536 prototypes stay unused, and the loss stays at ln K (facebookresearch/dino issues
        43 and 246). From 20 thousand images to ImageNet's 1.28 million, the teacher's temperature rises from 0.02 to
        0.07 and the initial momentum from 0.99 to 0.996, linearly in the logarithm of the number of images.

        Examples:
            >>> small = DINOConfig.for_num_images(10_000)
            >>> small.prototypes, small.teacher_temperature, small.momentum
            (1024, 0.02, 0.99)
        """
        table = {20_000: 1024, 50_000: 2048, 100_000: 4096, 200_000: 16384, 500_000: 32768}
        prototypes = next((k for bound, k in table.items() if num_images < bound), 65536)
        share = math.log(max(num_images, 1) / 20_000) / math.log(1_281_167 / 20_000)
        share = min(1.0, max(0.0, share))
        temperature = 0.02 + share * 0.05
        return cls(
            prototypes=prototypes,
            teacher_temperature=temperature,
            teacher_temperature_start=min(0.04, temperature),
            momentum=0.99 + share * 0.006,
        )

    def build(self, encoder: Encoder) -> DINO:
        """Return the method with these settings, which trains `encoder`."""
        return DINO(encoder, self)


class DINO(Method):
    """Cross-entropy between the teacher's output on a global crop and the student's output on a different crop."""

    def __init__(self, encoder: Encoder, config: DINOConfig) -> None:
        super().__init__()
        _prepare(encoder, config)
        self.config = config
        self.student = encoder
        self.head = DINOHead(encoder.feature_dim, config)
        self.teacher = Ema(encoder, self.head)
        self.center = Center(config.prototypes, momentum=config.center_momentum)
        self.teacher_temperature = config.teacher_temperature_start
        self.last_layer_is_frozen = False

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """Return the teacher's encoder, which is better than the student's throughout training (figure 6)."""
        encoder: Encoder = self.teacher.copies[0]  # type: ignore[assignment]
        return encoder

    def views(self) -> tuple[ViewSpec, ...]:
        """Return two global crops, then the local crops."""
        config = self.config
        return (config.global_view_0, config.global_view_1, *[config.local_view] * config.num_local_views)

    def before_step(self, step: int, steps: int) -> None:
        """Set the teacher's temperature, which rises linearly, and freeze the last layer in the first steps."""
        config = self.config
        warmup = min(config.teacher_temperature_warmup_steps, int(MAX_WARMUP * steps))
        risen = min(1.0, step / warmup) if warmup else 1.0
        start, end = config.teacher_temperature_start, config.teacher_temperature
        self.teacher_temperature = start + risen * (end - start)
        self.last_layer_is_frozen = step < min(config.freeze_last_layer_steps, int(MAX_FREEZE * steps))

    def forward(self, batch: Batch) -> Loss:
        """Return the loss of the paper's equation 3, averaged over pairs of a global crop and another crop.

        For a pair, it is the cross-entropy between the teacher's output on the global crop and the student's output on
        the other crop. The mean of the ranks' values is the loss of the global batch. All ranks have the same centre.
        """
        num_views = len(batch.views)
        with torch.no_grad():
            t = self.teacher.copies[1](cls_crops(self.encoder, batch.views[:2]))
            center = self.center.mean if self.config.center else torch.zeros_like(self.center.mean)
            p_t = ((t - center) / self.teacher_temperature).softmax(dim=1).chunk(2)
        s = self.head(cls_crops(self.student, batch.views))
        log_p_s = (s / self.config.student_temperature).log_softmax(dim=1).chunk(num_views)

        pairs = [(g, v) for g in range(2) for v in range(num_views) if v != g]
        loss = torch.stack([-(p_t[g] * log_p_s[v]).sum(dim=1).mean() for g, v in pairs]).mean()

        self.remember({"teacher_mean": t.mean(0, keepdim=True)})
        entropy = -torch.stack([torch.xlogy(p, p).sum(dim=1).mean() for p in p_t]).mean()
        # If the entropy or the KL divergence is 0, the outputs have collapsed (figure 7).
        metrics = {"teacher_entropy": entropy, "kl": loss.detach() - entropy}
        return Loss(loss, metrics, outputs=p_t)

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Move the centre towards the step's mean teacher output.

        `rows` holds the means of the micro-batches. These have equal sizes, so the mean of the means is the mean of the
        step.
        """
        self.center.update(rows["teacher_mean"])

    def after_backward(self) -> None:
        """Drop the gradient of the last layer while it is frozen."""
        if self.last_layer_is_frozen:
            self.head.prototypes.weight.grad = None
            if self.head.lengths is not None:
                self.head.lengths.grad = None

    def after_step(self, progress: float) -> None:
        """Update the teacher's weights, a moving average of the student's; the momentum rises to 1."""
        momentum = cosine(self.config.momentum, 1.0, progress=progress)
        self.teacher.update(self.student, self.head, momentum=momentum)


def _prepare(encoder: Encoder, config: DINOConfig) -> None:
    """If `transformer` is "official", set up the vision transformer as the authors' code does.

    Position embeddings are resized without antialiasing. If the initial weights are random, the class token is drawn
    with a standard deviation of 0.02.
    """
    if config.transformer == "timm":
        return
    transformer = require_transformer(encoder, because="method.transformer official")
    encoder.position_matrix = plain_bicubic
    if encoder.config.init == "random":
        start_class_token(transformer, std=0.02)


class DINOHead(nn.Module):
    """Three layers with GELU, then the cosine to each prototype, times the prototype's length if that is learned."""

    def __init__(self, dim: int, config: DINOConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim
        self.mlp = nn.Sequential(
            *_layer(dim, hidden, batch_norm=config.head_batch_norm),
            *_layer(hidden, hidden, batch_norm=config.head_batch_norm),
            nn.Linear(hidden, config.bottleneck_dim),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.prototypes = nn.Linear(config.bottleneck_dim, config.prototypes, bias=False)
        # The lengths of prototypes have the shape of a matrix, so that they get weight decay, as in the authors' code.
        self.lengths = None if config.norm_last_layer else nn.Parameter(torch.ones(config.prototypes, 1))

    def forward(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Return logits in full precision.

        Prototypes are normalised here and not by `weight_norm`, so that a checkpoint holds them as a plain weight.
        """
        z = full_precision(self.mlp(x))
        with without_autocast(x):
            prototypes = F.normalize(self.prototypes.weight, dim=1)
            if self.lengths is not None:
                prototypes = self.lengths * prototypes
            return F.linear(F.normalize(z, dim=1), prototypes)


def _layer(fan_in: int, fan_out: int, *, batch_norm: bool) -> list[nn.Module]:
    norm: list[nn.Module] = [nn.BatchNorm1d(fan_out)] if batch_norm else []
    return [nn.Linear(fan_in, fan_out, bias=not batch_norm), *norm, nn.GELU()]
