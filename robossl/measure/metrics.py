"""Scores of predictions: balanced accuracy and R2, also as statistics of sums that a bootstrap can resample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

LEAST_DEVIATION = 0.1  # of all frames, per frame; resamples of the G1 episodes have 0.12 or more in each joint


def balanced_accuracy(truth: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> float:
    """Return the mean recall over the classes in `truth`; 1 / classes is chance."""
    hits = predicted == truth
    return float(np.mean([hits[truth == c].mean() for c in np.unique(truth)]))


def above_chance(accuracy: Any, num_classes: Any) -> Any:
    """Rescale an accuracy to 0 at chance and 1 if everything is right."""
    chance = 1 / num_classes
    return (accuracy - chance) / (1 - chance)


def one_hot(classes: Int[ndarray, " n"], num_classes: int) -> Float[ndarray, "n c"]:
    """Return one column per class."""
    return np.asarray(np.eye(num_classes)[classes])


def class_weights(classes: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Return frame weights that give every class the same total."""
    counts = np.bincount(classes)
    return np.asarray(1.0 / counts[classes])


def least_deviation(deviation: Float[ndarray, "*b k"], of_all: Float[ndarray, "*b k"]) -> Float[ndarray, "*b k"]:
    """Return the squared deviation that R2 divides by: that of all frames if these frames hardly move."""
    return np.where(deviation < LEAST_DEVIATION * of_all, of_all, deviation)


@dataclass(frozen=True, slots=True)
class R2:
    """Explained variance of groups of columns with one unit, averaged over the groups; a statistic of sums."""

    groups: tuple[tuple[int, ...], ...]

    def parts(self, target: Float[ndarray, "n t"], predicted: Float[ndarray, "n t"]) -> Float[ndarray, "n 3*t"]:
        """Return what is summed. Targets should be near zero, because their squares are summed."""
        return np.concatenate([target, np.square(target), np.square(target - predicted)], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """Return R2 from the number of frames and the sums of the parts."""
        num = sums[..., :1]
        first, second, error = np.split(sums[..., 1:], 3, axis=-1)
        deviation = np.maximum(second - np.square(first) / num, 0)
        scores = [1 - error[..., list(g)].sum(axis=-1) / deviation[..., list(g)].sum(axis=-1) for g in self.groups]
        value: Float[ndarray, " ..."] = np.mean(scores, axis=0)
        return value


@dataclass(frozen=True, slots=True)
class BalancedAccuracy:
    """Mean recall over the classes that occur, rescaled to 0 at chance and 1 if all is right; a statistic of sums."""

    num_classes: int

    def parts(self, target: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> Float[ndarray, "n 2*c"]:
        """Return the occurrences and the hits of each class."""
        present = one_hot(target, self.num_classes)
        return np.concatenate([present, present * (predicted == target)[:, None]], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """Return the score from the number of frames and the sums of the parts."""
        present, hits = np.split(sums[..., 1:], 2, axis=-1)
        num = (present > 0).sum(axis=-1)
        recall = np.where(present > 0, hits / np.where(present > 0, present, 1), 0).sum(axis=-1) / num
        value: Float[ndarray, " ..."] = above_chance(recall, num)
        return value
