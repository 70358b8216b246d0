"""Distillation: a student learns to predict the features of one or several frozen teachers, or their relations.

The student and each teacher see the same augmented picture, each at its own size and with its own normalisation.
Feature form: a projector of the student's pooled feature, and of each cell of its feature map, predicts that of the
teacher (as in Theia, arXiv:2407.20179, and AM-RADIO, arXiv:2312.06709). Relation form: the student's similarities to a
queue of earlier teacher features match the teacher's own (SEED, arXiv:2101.04731, equation 3). Several teachers have a
projector each, and the loss is the mean over teachers. Teachers are not part of a checkpoint, only their digests.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from robossl.common.checks import check_positive, check_range
from robossl.encoders.encoder import Encoder, Features
from robossl.errors import InputError
from robossl.methods.base import Loss, Method
from robossl.methods.parts.cells import same_cells
from robossl.methods.parts.frozen import FrozenTeacher
from robossl.methods.parts.heads import mlp
from robossl.methods.parts.losses import full_precision, negative_cosine, relation_loss
from robossl.methods.parts.standardise import Standard, Standardiser
from robossl.methods.parts.teacher import Queue
from robossl.views import OPERATIONS, Batch, ViewSpec

VIEW = ViewSpec(scale=(0.14, 1.0), brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05, blur_p=0.0)


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Distillation. No paper has these very numbers; docs/distillation.md has the runs that chose them."""

    teacher: tuple[str, ...]  # addresses of encoders: timm:NAME@FILE, a run, an encoder folder, an exported model
    teacher_size: int | None = None  # pixels of the teachers' input; None: the input size of each
    output: Literal["pooled", "cls"] = "pooled"  # output of the teachers that the student's pooled feature predicts
    loss: Literal["feature", "relation", "both"] = "feature"
    distance: Literal["cosine", "smooth_l1", "mse"] = "cosine"  # between a prediction and its target (feature form)
    pooled_weight: float = 1.0
    dense_weight: float = 0.0  # of the feature map, in the feature form
    relation_weight: float = 1.0
    standardise: Standard = "channel"  # of the targets, by moments of the first `statistics_steps` steps
    statistics_steps: int = 20
    projector_layers: int = 1
    hidden_dim: int = 2048  # of a projector with 2 or more layers
    queue_size: int = 4096  # teacher features in the queue of the relation form
    temperature: float = 0.07  # of the relation form, for teacher and student (lightly-train)
    view: ViewSpec = VIEW

    def __post_init__(self) -> None:
        if not self.teacher:
            raise InputError("teacher is empty; name one or more encoders, such as timm:NAME@FILE or a run folder")
        check_range(1, teacher_size=self.teacher_size, projector_layers=self.projector_layers)
        check_range(1, queue_size=self.queue_size, statistics_steps=self.statistics_steps)
        check_range(0, pooled_weight=self.pooled_weight, dense_weight=self.dense_weight)
        check_positive(temperature=self.temperature, relation_weight=self.relation_weight)
        if self.loss != "relation" and self.pooled_weight + self.dense_weight == 0:
            raise InputError("pooled_weight and dense_weight are both 0; raise one, or set loss to relation")

    @property
    def outputs(self) -> tuple[str, ...]:
        """The outputs of the teachers that the loss uses."""
        dense = self.loss != "relation" and self.dense_weight > 0
        pooled = self.loss != "feature" or self.pooled_weight > 0
        return (self.output,) * pooled + ("dense",) * dense

    def build(self, encoder: Encoder) -> Distill:
        """Return the method with these settings, which trains `encoder`."""
        return Distill(encoder, self)


class Distill(Method):
    """Predict a frozen teacher's features of the same picture; `encoder` is the student without its projectors."""

    def __init__(self, encoder: Encoder, config: DistillConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        # A tuple, which torch does not search for modules, so that teachers are neither trained nor saved.
        self.teachers = tuple(
            FrozenTeacher(address, outputs=config.outputs, size=config.teacher_size, student=encoder.config)
            for address in config.teacher
        )
        self.heads = nn.ModuleList(DistillHead(encoder.feature_dim, each.dims, config) for each in self.teachers)
        self.weights = {
            "pooled": config.pooled_weight,
            "dense": config.dense_weight,
            "relation": config.relation_weight,
        }
        self.sizes = tuple(dict.fromkeys((config.view.size, *(each.size for each in self.teachers))))

    def views(self) -> tuple[ViewSpec, ...]:
        """Return the student's view, then the same picture at every other size that a teacher takes."""
        return tuple(_at_size(self.config.view, size) for size in self.sizes)

    def teacher_records(self) -> list[dict[str, Any]]:
        """Return the names, digests and licences of the teachers, for the card of the student."""
        return [teacher.record for teacher in self.teachers]

    def encoder_sizes(self) -> set[int]:
        """Return the size of the student's view."""
        return {self.config.view.size}

    def forward(self, batch: Batch) -> Loss:
        """Return the mean over teachers of their losses. The loss of a sample depends on no other sample."""
        features = self.encoder(batch.views[0].pixels)
        losses, outputs = [], []
        rows: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for number, (teacher, head) in enumerate(zip(self.teachers, self.heads, strict=True)):
            targets = teacher(batch.views[self.sizes.index(teacher.size)].pixels)
            terms, raw, prediction = head(features, targets)
            losses.append(torch.stack([self.weights[name] * term for name, term in terms.items()]).sum())
            outputs.append(prediction.detach())
            rows |= {f"{number}.{name}": value for name, value in raw.items()}
            last = f"_{number}" if len(self.teachers) > 1 else ""
            metrics |= {f"{name}{last}": term.detach() for name, term in terms.items()}
        if rows:
            self.remember(rows)
        return Loss(torch.stack(losses).mean(), metrics, outputs=tuple(outputs))

    def update_memory(self, rows: dict[str, Tensor]) -> None:
        """Push the teachers' features of the step into the queues, then add them to the moments."""
        for number, each in enumerate(self.heads):
            head: DistillHead = each  # type: ignore[assignment]
            mine = {name.partition(".")[2]: value for name, value in rows.items() if name.startswith(f"{number}.")}
            head.update(mine)

    def get_extra_state(self) -> Tensor:
        """Return the digests of the teachers, which a checkpoint holds in place of their weights: (teachers, 32)."""
        return torch.tensor([list(bytes.fromhex(each.digest)) for each in self.teachers], dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse a checkpoint of a run with other teachers.

        Raises:
            InputError: the digest of a teacher differs from the one in the checkpoint.
        """
        for teacher, digest in zip(self.teachers, state.tolist(), strict=True):
            if teacher.digest != (before := bytes(digest).hex()):
                raise InputError(
                    f"the teacher {teacher.address} has the digest {teacher.digest[:12]}, the run was trained with "
                    f"{before[:12]}; put the old weights back, or start a new run with another --out"
                )


class DistillHead(nn.Module):
    """The projectors of one teacher, the moments of its features, and the queue of the relation form."""

    def __init__(self, feature_dim: int, dims: dict[str, int], config: DistillConfig) -> None:
        super().__init__()
        self.config = config
        hidden = [config.hidden_dim] * (config.projector_layers - 1)
        self.projectors = nn.ModuleDict({name: mlp([feature_dim, *hidden, dim]) for name, dim in dims.items()})
        self.standards = nn.ModuleDict(
            {
                name: Standardiser(dim, kind=config.standardise, steps=config.statistics_steps)
                for name, dim in dims.items()
            }
        )
        self.queue = Queue(config.queue_size, dims[config.output]) if config.loss != "feature" else None

    def forward(
        self, features: Features, targets: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Float[Tensor, "b d"]]:
        """Return the terms of the loss, the rows of the teacher to remember, and predictions for the monitor."""
        config = self.config
        terms: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        predictions: list[Tensor] = []
        for name, target in targets.items():
            mine, theirs = features.pooled, target
            if name == "dense":
                mine, theirs = same_cells(features.dense, target)
            p, t = full_precision(self.projectors[name](mine)), self.standards[name](theirs)
            predictions.append(p)
            if self.standards[name].is_open or (self.queue is not None and name != "dense"):
                rows[name] = theirs
            if config.loss != "relation" and (name == "dense" or config.pooled_weight > 0):
                terms["dense" if name == "dense" else "pooled"] = distance(p, t, kind=config.distance)
            if self.queue is not None and name != "dense":
                queue = self.queue.rows.clone()  # a copy: `remember` may move it before the backward pass
                terms["relation"] = relation_loss(p, t, queue, temperature=config.temperature)
        return terms, rows, predictions[0]

    def update(self, rows: dict[str, Tensor]) -> None:
        """Take the teacher's features of a step, by name of the output."""
        for name, value in rows.items():
            standard: Standardiser = self.standards[name]  # type: ignore[assignment]
            if self.queue is not None and name != "dense":
                self.queue.push(F.normalize(standard(value), dim=1))
            standard.update(value)


def distance(
    p: Float[Tensor, "n d"], t: Float[Tensor, "n d"], *, kind: Literal["cosine", "smooth_l1", "mse"]
) -> Float[Tensor, ""]:
    """Return the distance of predictions and targets, averaged over rows (and channels, if not the cosine)."""
    match kind:
        case "cosine":
            return 1 + negative_cosine(p, t)
        case "smooth_l1":
            return F.smooth_l1_loss(p, t)
        case "mse":
            return F.mse_loss(p, t)


def _at_size(view: ViewSpec, size: int) -> ViewSpec:
    """Return the same picture as the view, at another size; the blur is in pixels, so it grows with the size."""
    low, high = (sigma * size / view.size for sigma in view.blur_sigma)
    return view if size == view.size else replace(view, size=size, blur_sigma=(low, high), as_first=OPERATIONS)
