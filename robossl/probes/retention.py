"""How much of a task's head is left under a view: what a policy on this encoder would feel.

Three heads, all linear: fitted on clean frames and asked for T.y (does the head follow what the view did?) or for y
itself (does it stay?), and fitted on clean and transformed frames (could a policy trained with the factor follow?).
Retention is the score above chance under the view over that on clean frames: 1 no loss, 0 chance. A label that is not
surely read off clean frames has no retention: a head that reads nothing loses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.probes.bootstrap import Draws, missing, unseen_share
from robossl.probes.frames import Label
from robossl.probes.label_maps import Moved, are_rotations
from robossl.probes.readout import R2, BalancedAccuracy, Readout, balance, fit_basis, one_hot
from robossl.probes.result import UNKNOWN, UNREADABLE, Figure, Retention

READABLE = 0.15
WORST = -1.0  # R2 has no lower bound; a head as far below chance as it was above has lost all there is to lose
MIN_FRAMES = 20  # with a label, below which no head is fitted
LEAST_STD = 1e-3  # of a label in its own unit (metres, half sides, 1): below, there is nothing to be read
HeadName = Literal["clean", "same", "augmented"]


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted read-out of one label."""

    readout: Readout
    target: Target

    def read(self, features: Float[ndarray, "n d"]) -> Any:
        """Predictions, as `Target.parts` takes them."""
        return self.target.decide(self.readout(features.astype(np.float64)))


@dataclass(frozen=True, slots=True)
class Target:
    """How a label is regressed: columns, in groups of one unit; classes as one column each."""

    type: str
    num_classes: int
    groups: tuple[tuple[int, ...], ...]  # those that vary: the position of a camera that never turns
    centre: Float[ndarray, " t"]  # of the columns, taken off before squares are summed

    @classmethod
    def of(cls, label: Label) -> Target:
        """From the labels that heads are fitted on."""
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
        """0 at chance, 1 perfect."""
        return BalancedAccuracy(self.num_classes) if self.type == "class" else R2(self.groups)

    def columns(self, label: Label) -> Float[ndarray, "n t"]:
        """What is regressed; nan in rows without a label."""
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
        """Classes for classes, columns else."""
        return predicted.argmax(axis=1) if self.type == "class" else predicted

    def parts(self, label: Label, predicted: Any) -> Float[ndarray, "n k"]:
        """One row a frame, for a bootstrap of `score`; nan in rows without a label."""
        columns = self.columns(label)
        known = np.isfinite(columns).all(axis=1)
        score = self.score
        if isinstance(score, BalancedAccuracy):
            found = score.parts(np.where(known, np.nan_to_num(columns).argmax(axis=1), 0), predicted)
        else:
            found = score.parts(columns, predicted)
        return np.where(known[:, None], found, np.nan)


@dataclass(frozen=True, slots=True)
class Task:
    """One label, its clean head, and how that reads the clean frames that are judged."""

    name: str
    head: Head | None
    label: Label  # of the evaluated frames
    clean: Float[ndarray, "n k"]  # parts
    figure: Figure  # the clean score
    reason: str | None  # why there is no retention
    readable: float = READABLE  # least lower bound of the clean score


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
) -> Task:
    """Fit the clean head of a label on the reference frames and score it on the evaluated ones.

    Args:
        name: Of the label.
        train: The label on the reference frames.
        test: The label on the evaluated frames.
        reference: Features of the reference frames.
        reference_clusters: Their clusters, which are left out in turn to choose the penalty.
        clean: Features of the evaluated frames.
        draws: Resamples of the clusters of the evaluated frames.
        readable: What the lower bound of the clean score above chance must reach for a task to count as read.
    """
    head = _fit(train, [(reference, train)], reference_clusters)
    if head is None or not np.isfinite(clean).all():
        none = f"{UNREADABLE}: too few frames with this label, or features that are not finite"
        return Task(name, None, test, np.full((len(clean), 1), np.nan), missing(none, n=len(clean)), none)
    parts = head.target.parts(test, head.read(clean))
    figure = draws.figure(parts, head.target.score)
    reason = _unreadable(figure, readable, "clean frames")
    return Task(name, head, test, parts, figure, reason, readable)


def retention(
    task: Task,
    moved: Float[ndarray, "n d"],
    label: Moved,
    draws: Draws,
    *,
    factor: str,
    level: int,
    augmented: Head | None = None,
) -> tuple[Retention, ...]:
    """Retention of one task under one view, for the clean head asked T.y and y, and an augmented head asked T.y.

    Args:
        task: From `fit_task`.
        moved: Features of the evaluated frames under the view.
        label: T.y of the evaluated frames, or why there is none.
        draws: Resamples of the clusters of the evaluated frames.
        factor: Name in the results.
        level: In the results.
        augmented: From `fit_augmented`.
    """
    heads: tuple[HeadName, ...] = ("clean", "same") if augmented is None else ("clean", "same", "augmented")
    return tuple(_retained(task, moved, label, draws, factor, level, head, augmented) for head in heads)


def fit_augmented(
    task: Task,
    train: Label,
    moved_train: Moved,
    *,
    reference: Float[ndarray, "r d"],
    moved_reference: Float[ndarray, "r d"],
    reference_clusters: Int[ndarray, " r"],
) -> Head | None:
    """A head fitted on the reference as it is with y and under the view with T.y; None where there is none."""
    if task.head is None or moved_train.label is None:
        return None
    pairs = [(reference, train), (moved_reference, moved_train.label)]
    return _fit(train, pairs, np.concatenate([reference_clusters, reference_clusters]))


def _retained(
    task: Task,
    moved: Float[ndarray, "n d"],
    label: Moved,
    draws: Draws,
    factor: str,
    level: int,
    name: HeadName,
    augmented: Head | None,
) -> Retention:
    head = augmented if name == "augmented" else task.head
    asked = task.label if name == "same" else label.label
    reason = task.reason if asked is not None else f"{UNKNOWN}: {label.reason}"
    if not np.isfinite(moved).all():
        reason = "the features are not finite"
    if reason or head is None or asked is None:
        figure = missing(reason or "no head", n=len(moved), clusters=draws.weights.shape[1])
        return Retention(task.name, factor, level, name, figure, task.figure.value, None)
    target = head.target
    parts = target.parts(asked, head.read(moved))
    score, width = target.score, parts.shape[1]

    def kept(sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        clean = score(np.concatenate([sums[..., :1], sums[..., 1 + width :]], axis=-1))
        return np.where(clean > 0, np.maximum(score(sums[..., : 1 + width]) / clean, WORST), np.nan)

    still_shown = np.isfinite(parts).all(axis=1)[:, None]
    clean = draws.figure(np.where(still_shown, task.clean, np.nan), score)
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
    """Why a clean score is none to keep a share of; None where its lower bound is high enough."""
    if figure.value is None or figure.low is None or figure.high is None:
        return f"{UNREADABLE}: no score on {where} ({figure.reason})"
    if figure.low >= readable:
        return None
    shown = f"score {figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}] above chance on {where}"
    return f"{UNREADABLE}: {shown}, its lower bound must be {readable:g}"


def _slack(target: Target, parts: Float[ndarray, "n k"], clean: Figure) -> float:
    """How far classes that no resample tells apart may yet be from the truth: what so few clusters cannot show."""
    if target.type != "class" or clean.value is None:
        return 0.0
    present = int((np.nansum(parts[:, : target.num_classes], axis=0) > 0).sum())
    return unseen_share(clean.clusters) / ((1 - 1 / present) * clean.value)


def _fit(train: Label, pairs: list[tuple[Any, Label]], clusters: Int[ndarray, " r"]) -> Head | None:
    """A ridge head on all pairs of features and labels; the columns are centred as those of `train` are."""
    if not np.isfinite(train.values).any():
        return None
    target = Target.of(train)
    features = np.concatenate([np.asarray(each, np.float64) for each, _ in pairs])
    columns = np.concatenate([target.columns(label) for _, label in pairs])
    known = np.isfinite(columns).all(axis=1)
    if known.sum() < MIN_FRAMES or not np.isfinite(features).all():
        return None
    features, columns = features[known], columns[known]
    weights = balance(columns.argmax(axis=1)) if train.type == "class" else None
    basis = fit_basis(features, weights)
    return Head(basis.fit(columns, basis.choose(columns, clusters[known])), target)


def _axes(quaternions: Float[ndarray, "n 4"]) -> Float[ndarray, "n 6"]:
    """The first two columns of the rotation matrices: numbers without a seam, unlike quaternions and angles."""
    from scipy.spatial.transform import Rotation

    known = are_rotations(quaternions)
    found = np.full((len(quaternions), 6), np.nan)
    if known.any():
        found[known] = Rotation.from_quat(quaternions[known]).as_matrix()[:, :, :2].reshape(-1, 6)
    return found
