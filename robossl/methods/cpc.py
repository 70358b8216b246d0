"""CPC on video: find the frame k steps ahead among other frames, given the frames so far (arXiv:1807.03748).

A context c_t summarises the vectors z of the frames up to t and, if configured, actions and joint states. For each
k = 1..K a matrix W_k makes a prediction from c_t. The product of this prediction with z_{t+k} is the log-bilinear score
of equation 3. If all frames of a clip had the same change of colour, it would tell which frames belong together,
whatever they show. Colour is therefore drawn for each frame separately. Watch the metric `same_clip_accuracy`, which
compares frames of one clip only. They share the background, so the background cannot raise this accuracy.
The anchor's own frame is not a negative, unlike in rlpyt's code. docs/methods.md lists further deviations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from robossl.common.checks import check_range
from robossl.encoders.encoder import Encoder
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.context import ColumnEmbedding, ContextKind, build_context
from robossl.methods.parts.teacher import Ema
from robossl.methods.parts.temporal import (
    FramePool,
    Negatives,
    PairSums,
    ResidualMLP,
    Similarity,
    clip_view,
    contrast,
    count_pairs,
    encode_clip,
    mean_over_pairs,
    pool_frames,
    similarity,
)
from robossl.views import Batch, ClipSpec, View, ViewSpec

VIEW = ViewSpec(per_frame=("jitter", "grayscale", "blur"))  # our own augmentation; the paper has none for video


@dataclass(frozen=True, slots=True)
class CPCConfig:
    """CPC with the numbers of section 3.1 (speech). "rlpyt" marks numbers of rlpyt's CPC for control (DMLab)."""

    num_frames: int = 32  # number of frames of a clip; T in rlpyt
    stride_seconds: float = 0.1
    steps: int = 12  # K in section 3.1: number of steps ahead that are predicted
    warmup_frames: int = 0  # first frames that only feed the context and are not in the loss; rlpyt: 16
    output_dim: int = 256  # rlpyt; the paper has 512 for audio
    context: ContextKind = "gru"  # section 3.1; rlpyt has an lstm
    context_dim: int = 256  # section 3.1
    context_layers: int = 1
    head: Literal["linear", "residual"] = "linear"  # linear: W_k c; residual: W_k (c + MLP(c)), as in ATC
    head_hidden_dim: int = 512  # hidden width of the residual head
    negatives: Negatives = "both"
    similarity: Similarity = "dot"  # equation 3
    temperature: float = 1.0  # equation 3 has no temperature
    target: Literal["online", "stop_gradient", "ema"] = "online"
    momentum: float = 0.99  # momentum of the "ema" target
    columns: dict[str, int] = field(default_factory=dict)  # width of each continuous column, such as joint states
    discrete_columns: dict[str, int] = field(default_factory=dict)  # number of different values of each discrete column
    column_dim: int = 32  # width of each embedded column
    column_lag: int = 0  # delay of columns in frames; rlpyt: 1, so that a frame comes with the action that led to it
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        ahead = self.num_frames - self.warmup_frames - 1
        if not 1 <= self.steps <= ahead or self.warmup_frames < 0:
            raise InputError(
                f"steps must be 1 to num_frames - warmup_frames - 1 = {ahead}, got {self.steps}; "
                "predict fewer steps or take longer clips"
            )
        if self.negatives == "same" and ahead < 2:
            raise InputError("negatives from the same clip need 3 frames after warm-up; raise num_frames")
        if self.stride_seconds <= 0 or self.temperature <= 0:
            raise InputError(
                f"stride_seconds and temperature must be positive, got {self.stride_seconds} and {self.temperature}"
            )
        if self.column_lag not in (0, 1):
            raise InputError(f"column_lag must be 0 or 1 frames, got {self.column_lag}")
        check_range(0, 1, momentum=self.momentum)
        check_range(1, context_layers=self.context_layers)
        check_range(1, **{f"columns.{name}": width for name, width in self.columns.items()})
        check_range(1, **{f"discrete_columns.{name}": count for name, count in self.discrete_columns.items()})
        clip_view(self.view, self.clip)

    @property
    def clip(self) -> ClipSpec:
        """Return the specification of the clips that the method reads."""
        return ClipSpec(
            self.num_frames, self.stride_seconds, rule="inside", columns=(*self.columns, *self.discrete_columns)
        )

    def build(self, encoder: Encoder) -> CPC:
        """Return the method with these settings, which trains `encoder`."""
        return CPC(encoder, self)


class CPC(Method):
    """InfoNCE loss: each prediction must find its frame among the frames of the global batch."""

    takes_clips = True

    def __init__(self, encoder: Encoder, config: CPCConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.shared_in_batch = () if config.negatives == "same" else ("negatives",)
        self.projector = nn.Linear(encoder.feature_dim, config.output_dim)
        self.columns = ColumnEmbedding(
            config.columns, config.discrete_columns, dim=config.column_dim, lag=config.column_lag
        )
        width = config.output_dim + self.columns.dim
        self.context = build_context(
            config.context,
            width,
            config.context_dim,
            layers=config.context_layers,
            num_frames=config.num_frames,
        )
        width = width if config.context == "none" else config.context_dim
        residual = ResidualMLP(width, config.head_hidden_dim) if config.head == "residual" else nn.Identity()
        # One linear layer holds the matrices W_k of all steps k.
        self.heads = nn.Sequential(residual, nn.Linear(width, config.steps * config.output_dim, bias=False))
        self.teacher = Ema(self.encoder, self.projector) if config.target == "ema" else None

    def views(self) -> tuple[ViewSpec, ...]:
        """Return one clip."""
        return (clip_view(self.config.view, self.config.clip),)

    def discrete_columns(self) -> dict[str, int]:
        """Return the number of values of each column that is looked up in a table."""
        return dict(self.config.discrete_columns)

    def forward(self, batch: Batch) -> Loss:
        """Return the mean of -log softmax(z W_k c_t)[t + k] over all valid (t, k) of the global batch.

        t is a frame, c_t its context, k a number of steps, W_k the matrix for k, and z the embeddings of all frames.
        """
        view, config = batch.views[0], self.config
        z = encode_clip(self.encoder, self.projector, view.pixels)
        c = self.context(self.columns(z, view.columns))
        predictions = self.heads(c).unflatten(-1, (config.steps, config.output_dim))
        trained = torch.arange(z.shape[1], device=z.device) >= config.warmup_frames
        pool = pool_frames(self._targets(z, view), view.time_seconds, view.valid & trained)
        sums = {k: self._step(predictions[:, :, k - 1], pool, k) for k in range(1, config.steps + 1)}
        shown = {f"k{k}": step_sums for k, step_sums in sums.items() if k in (1, 2, config.steps)}
        loss, metrics = mean_over_pairs(sums.values(), shown)
        outputs = (z[:, 0].detach(), z[:, -1].detach())
        return Loss(loss, metrics, outputs, weight=count_pairs(sums.values()))

    def _step(self, prediction: Tensor, pool: FramePool, k: int) -> PairSums:
        first, config = self.config.warmup_frames, self.config
        logits = similarity(prediction[:, first:-k].flatten(0, 1), pool.z, config.similarity, config.temperature)
        anchor, positive = pool.own[:, first:-k].flatten(), pool.own[:, first + k :].flatten()
        return contrast(logits, pool, anchor=anchor, positive=positive, negatives=config.negatives)

    def _targets(self, z: Tensor, view: View) -> Tensor:
        if self.teacher is None:
            return z if self.config.target == "online" else z.detach()
        encoder, projector = self.teacher.copies
        with torch.no_grad():
            return encode_clip(encoder, projector, view.pixels)

    def after_step(self, progress: float) -> None:
        """Update the teacher's weights, a moving average of the encoder's. Only the "ema" target has a teacher."""
        if self.teacher is not None:
            self.teacher.update(self.encoder, self.projector, momentum=self.config.momentum)
