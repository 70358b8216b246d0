"""Linear heads that predict a label from features: the columns they regress, their fit and their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.metrics import R2, BalancedAccuracy, class_weights, one_hot
from robossl.measure.ridge import Readout, fit_basis
from robossl.probes.frames import Label
from robossl.probes.label_maps import are_rotations

MIN_FRAMES = 20  # minimum number of frames with the label to fit a head
LEAST_STD = 1e-3  # columns with a smaller std count as constant; the unit is that of the column


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


def fit_head(train: Label, pairs: list[tuple[Any, Label]], clusters: Int[ndarray, " r"]) -> LabelHead | None:
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
