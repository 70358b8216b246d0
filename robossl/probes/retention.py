"""Measure retention: the share of a head's score that is left on views (transformed frames).

A robot policy that uses the features may lose as much as a head. All heads are linear and predict a label y. The
clean head is fitted on clean frames. On views, it is tested with the moved label T.y (does it follow the
transformation?) and with y (does it ignore the transformation?). The augmented head is fitted on clean frames and
views, and tested with T.y (could a policy that was trained with the factor follow it?). Retention is the score above
chance on views, divided by the score above chance on clean frames. A value of 1 is no loss, 0 is chance. It exceeds 1
if a head reads views better than clean frames. If a label cannot be read reliably off clean frames, it has no
retention, because a head that reads nothing has nothing to lose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import UP_TO_ONE, Draws, Figure, missing, unseen_share
from robossl.measure.metrics import R2, BalancedAccuracy, class_weights, one_hot
from robossl.measure.ridge import Readout, fit_basis
from robossl.probes.frames import Label
from robossl.probes.label_maps import ViewLabel, are_rotations
from robossl.probes.result import UNKNOWN, UNREADABLE, Retention

# Smallest score above chance at which a label counts as readable. It is compared with the lower bound of the score that
# the label's head has on clean frames.
READABLE = 0.15
# Lower limit of retention. It is needed because R2, and so the score on transformed frames, has no lower limit.
WORST = -1.0
MIN_FRAMES = 20  # minimum number of frames with the label to fit a head
LEAST_STD = 1e-3  # columns with a smaller std count as constant; the unit is that of the column
HeadName = Literal["clean", "same", "augmented"]


@dataclass(frozen=True, slots=True)
class LabelHead:
    """A fitted linear head that predicts one label."""

    readout: Readout
    target: Target

    def read(self, features: Float[ndarray, "n d"]) -> Any:
        """Return predictions of the label from features, in the form that `Target.parts` takes."""
        return self.target.decide(self.readout(features.astype(np.float64)))


@dataclass(frozen=True, slots=True)
class Target:
    """Turns a label into columns that a head regresses (one for each class, or the label's numbers)."""

    type: str
    num_classes: int
    # Indices of the columns that are scored, in groups with the same unit. Groups that do not vary are left out.
    groups: tuple[tuple[int, ...], ...]
    centre: Float[ndarray, " t"]  # mean of the columns, which `columns` subtracts

    @classmethod
    def of(cls, label: Label) -> Target:
        """Return the target for a label. Pass the label of the frames on which the head is fitted."""
        num = len(label.classes) or (int(np.nanmax(label.values)) + 1 if label.type == "class" else 0)
        groups = {
            "point": ((0, 1),),
            "angle": ((0, 1),),
            "box": ((0, 1), (2, 3)),
            "pose": ((0, 1, 2), tuple(range(3, 9))),
            "class": (),
        }[label.type]
        columns = 0 if label.type == "class" else 1 + max(j for group in groups for j in group)
        target = cls(label.type, num, groups, np.zeros(columns))
        if label.type == "class":
            return target
        values = target.columns(label)
        std = np.sqrt(np.nanvar(values, axis=0))
        varied = tuple(group for group in groups if std[list(group)].max() >= LEAST_STD)
        return cls(label.type, num, varied or groups, np.nanmean(values, axis=0))

    @property
    def score(self) -> R2 | BalancedAccuracy:
        """The statistic that scores predictions: 0 is chance, 1 is perfect."""
        return BalancedAccuracy(self.num_classes) if self.type == "class" else R2(self.groups)

    def columns(self, label: Label) -> Float[ndarray, "n t"]:
        """Return the columns to regress, a row for each frame; nan for frames without a label."""
        values = label.values.astype(np.float64)
        if self.type == "class":
            known = np.isfinite(values[:, 0]) & (values[:, 0] < self.num_classes)
            hot = np.full((len(values), self.num_classes), np.nan)
            hot[known] = one_hot(values[known, 0].astype(np.int64), self.num_classes)
            return hot
        if self.type == "angle":
            values = np.concatenate([np.cos(values), np.sin(values)], axis=1)
        if self.type == "pose":
            values = np.concatenate([values[:, :3], _axes(values[:, 3:])], axis=1)
        return np.asarray(values - self.centre)

    def decide(self, predicted: Float[ndarray, "n t"]) -> Any:
        """Return the predicted classes if the label is of type "class", else the predicted columns."""
        return predicted.argmax(axis=1) if self.type == "class" else predicted

    def parts(self, label: Label, predicted: Any) -> Float[ndarray, "n k"]:
        """Return for each frame the terms whose sums give `score` (for a bootstrap); nan for frames without a label."""
        columns = self.columns(label)
        known = np.isfinite(columns).all(axis=1)
        score = self.score
        if isinstance(score, BalancedAccuracy):
            parts = score.parts(np.where(known, np.nan_to_num(columns).argmax(axis=1), 0), predicted)
        else:
            parts = score.parts(columns, predicted)
        return np.where(known[:, None], parts, np.nan)


@dataclass(frozen=True, slots=True)
class RetentionTask:
    """One label, the head that was fitted to it on clean frames, and the head's score on the clean evaluated frames."""

    name: str
    head: LabelHead | None
    label: Label  # the label of the evaluated frames
    clean: Float[ndarray, "n k"]  # result of `Target.parts` for `head` on the clean evaluated frames
    figure: Figure  # score of `head` on the clean evaluated frames
    reason: str | None  # why retention of this label cannot be computed; None if it can
    readable: float = READABLE  # the label counts as readable only if the lower bound of `figure` is at least this


def fit_task(
    name: str,
    train: Label,
    test: Label,
    *,
    reference: Float[ndarray, "r d"],
    reference_clusters: Int[ndarray, " r"],
    clean: Float[ndarray, "n d"],
    draws: Draws,
    readable: float = READABLE,
) -> RetentionTask:
    """Fit a head that predicts a label from features of clean reference frames; score it on clean evaluated frames.

    Args:
        name: Name of the label.
        train: The label of the reference frames.
        test: The label of the evaluated frames.
        reference: Features of the reference frames.
        reference_clusters: Cluster (such as an episode) of each reference frame. The ridge penalty is chosen by
            cross-validation that leaves out clusters in turn.
        clean: Features of the evaluated frames.
        draws: Bootstrap resamples of the clusters of the evaluated frames.
        readable: The label counts as readable only if the lower bound of its score above chance is at least this.
    """
    head = _fit(train, [(reference, train)], reference_clusters)
    if head is None or not np.isfinite(clean).all():
        reason = f"{UNREADABLE}: too few frames with this label, or features that are not finite"
        return RetentionTask(name, None, test, np.full((len(clean), 1), np.nan), missing(reason, n=len(clean)), reason)
    parts = head.target.parts(test, head.read(clean))
    figure = draws.figure(parts, head.target.score, limits=UP_TO_ONE)
    return RetentionTask(name, head, test, parts, figure, _unreadable(figure, readable, "clean frames"), readable)


def retention(
    task: RetentionTask,
    moved: Float[ndarray, "n d"],
    label: ViewLabel,
    draws: Draws,
    *,
    factor: str,
    level: int,
    augmented: LabelHead | None = None,
) -> tuple[Retention, ...]:
    """Return the retention of a label on transformed frames: of the clean head in two tests, and of the augmented head.

    The clean head is tested with T.y (the label of the transformed frame; result "clean") and with y (the label of the
    clean frame; result "same"). The augmented head is tested with T.y.

    Args:
        task: Result of `fit_task`.
        moved: Features of the evaluated frames after the transformation.
        label: Label T.y of the transformed evaluated frames, or why it is unknown.
        draws: Bootstrap resamples of the clusters (such as episodes) of the evaluated frames.
        factor: Name of the factor, for the results.
        level: Level of the factor, for the results.
        augmented: Result of `fit_augmented`; None to leave the augmented head out.
    """
    heads: tuple[HeadName, ...] = ("clean", "same") if augmented is None else ("clean", "same", "augmented")
    return tuple(_retained(task, moved, label, draws, factor, level, head, augmented) for head in heads)


def fit_augmented(
    task: RetentionTask,
    train: Label,
    moved_train: ViewLabel,
    *,
    reference: Float[ndarray, "r d"],
    moved_reference: Float[ndarray, "r d"],
    reference_clusters: Int[ndarray, " r"],
) -> LabelHead | None:
    """Fit a head on clean and transformed reference frames.

    Return None if the label of the transformed frames is undefined, if there is no clean head, or if there are too few
    frames to fit a head.
    """
    if task.head is None or moved_train.label is None:
        return None
    pairs = [(reference, train), (moved_reference, moved_train.label)]
    return _fit(train, pairs, np.concatenate([reference_clusters, reference_clusters]))


def _retained(
    task: RetentionTask,
    moved: Float[ndarray, "n d"],
    label: ViewLabel,
    draws: Draws,
    factor: str,
    level: int,
    name: HeadName,
    augmented: LabelHead | None,
) -> Retention:
    head = augmented if name == "augmented" else task.head
    tested = task.label if name == "same" else label.label
    reason = task.reason if tested is not None else f"{UNKNOWN}: {label.reason}"
    if not np.isfinite(moved).all():
        reason = "the features are not finite"
    if reason or head is None or tested is None:
        figure = missing(reason or "no head", n=len(moved), clusters=draws.weights.shape[1])
        return Retention(task.name, factor, level, name, figure, task.figure.value, None)
    target = head.target
    parts = target.parts(tested, head.read(moved))
    score, width = target.score, parts.shape[1]

    def kept(sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        clean = score(np.concatenate([sums[..., :1], sums[..., 1 + width :]], axis=-1))
        return np.where(clean > 0, np.maximum(score(sums[..., : 1 + width]) / clean, WORST), np.nan)

    still_shown = np.isfinite(parts).all(axis=1)[:, None]
    clean = draws.figure(np.where(still_shown, task.clean, np.nan), score, limits=UP_TO_ONE)
    why = _unreadable(clean, task.readable, "clean frames that the view still shows")
    if why:
        figure = missing(why, n=clean.n, clusters=clean.clusters)
    else:
        figure = draws.figure(np.concatenate([parts, task.clean], axis=1), kept)
    if figure.low is not None and figure.high is not None:
        slack = _slack(target, parts, clean) if figure.low == figure.high else 0.0
        figure = replace(figure, low=max(figure.low - slack, WORST), high=figure.high + slack)
    transformed = draws.figure(parts, score).value
    return Retention(task.name, factor, level, name, figure, task.figure.value, transformed)


def _unreadable(figure: Figure, readable: float, where: str) -> str | None:
    """Return why retention cannot be computed: the lower bound of the score on clean frames is missing or too low.

    Return None if retention can be computed.
    """
    if figure.value is None or figure.low is None or figure.high is None:
        return f"{UNREADABLE}: no score on {where} ({figure.reason})"
    if figure.low >= readable:
        return None
    shown = f"score {figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}] above chance on {where}"
    return f"{UNREADABLE}: {shown}, its lower bound must be {readable:g}"


def _slack(target: Target, parts: Float[ndarray, "n k"], clean: Figure) -> float:
    """Return by how much to widen an interval whose bounds are equal because all resamples give the same retention.

    With few clusters (such as episodes), all predictions may be right (or all wrong) by chance. For labels that are not
    classes, return 0.
    """
    if target.type != "class" or clean.value is None:
        return 0.0
    present = int((np.nansum(parts[:, : target.num_classes], axis=0) > 0).sum())
    return unseen_share(clean.clusters) / ((1 - 1 / present) * clean.value)


def _fit(train: Label, pairs: list[tuple[Any, Label]], clusters: Int[ndarray, " r"]) -> LabelHead | None:
    """Fit a ridge head on all pairs of features and labels. `train` is the label that defines the columns to regress.

    Return None if too few frames have the label, or if a feature is not finite.
    """
    if not np.isfinite(train.values).any():
        return None
    target = Target.of(train)
    features = np.concatenate([np.asarray(each, np.float64) for each, _ in pairs])
    columns = np.concatenate([target.columns(label) for _, label in pairs])
    known = np.isfinite(columns).all(axis=1)
    if known.sum() < MIN_FRAMES or not np.isfinite(features).all():
        return None
    features, columns = features[known], columns[known]
    weights = class_weights(columns.argmax(axis=1)) if train.type == "class" else None
    basis = fit_basis(features, weights)
    return LabelHead(basis.fit(columns, basis.choose(columns, clusters[known])), target)


def _axes(quaternions: Float[ndarray, "n 4"]) -> Float[ndarray, "n 6"]:
    """Return the first two columns of each rotation matrix. Unlike angles, they do not jump as the camera turns."""
    from scipy.spatial.transform import Rotation

    known = are_rotations(quaternions)
    axes = np.full((len(quaternions), 6), np.nan)
    if known.any():
        axes[known] = Rotation.from_quat(quaternions[known]).as_matrix()[:, :, :2].reshape(-1, 6)
    return axes
