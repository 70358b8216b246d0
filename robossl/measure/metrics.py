"""Scores of predictions: balanced accuracy and R2.

The classes compute these scores from sums over frames, so that a bootstrap only has to resample the sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

# R2 divides the error by the target's variance on the scored frames, or by that on all frames (`least_deviation`).
# The latter is used if (variance on the scored frames) / (variance on all frames) is less than this.
# In bootstrap resamples of the G1 robot's episodes, each joint has at least 0.12 of its variance on all frames.
LEAST_DEVIATION = 0.1


def balanced_accuracy(truth: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> float:
    """Return the mean recall over the classes in `truth`; the chance level is 1 / (number of these classes)."""
    hits = predicted == truth
    return float(np.mean([hits[truth == c].mean() for c in np.unique(truth)]))


def above_chance(accuracy: Any, num_classes: Any) -> Any:
    """Rescale an accuracy so that chance level becomes 0, and 1 stays 1."""
    chance = 1 / num_classes
    return (accuracy - chance) / (1 - chance)


def one_hot(classes: Int[ndarray, " n"], num_classes: int) -> Float[ndarray, "n c"]:
    """Return one column per class: 1 in the rows of that class, else 0."""
    return np.asarray(np.eye(num_classes)[classes])


def class_weights(classes: Int[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Return a weight for each frame, such that the weights of every class have the same sum."""
    counts = np.bincount(classes)
    return np.asarray(1.0 / counts[classes])


def least_deviation(deviation: Float[ndarray, "*b k"], of_all: Float[ndarray, "*b k"]) -> Float[ndarray, "*b k"]:
    """Return the squared deviation that R2 divides by: `deviation`, or `of_all` if `of_all` is much larger.

    `deviation` belongs to the scored frames, and `of_all` to all frames. Frames in which the target hardly varies would
    otherwise give huge negative scores.
    """
    return np.where(deviation < LEAST_DEVIATION * of_all, of_all, deviation)


@dataclass(frozen=True, slots=True)
class R2:
    """R2 of each group of target columns, averaged over the groups. It is computed from sums over frames."""

    groups: tuple[tuple[int, ...], ...]  # column numbers of each group; columns with the same unit form a group

    def parts(self, target: Float[ndarray, "n t"], predicted: Float[ndarray, "n t"]) -> Float[ndarray, "n 3*t"]:
        """Return for each frame the terms to sum: target, squared target and squared error.

        Targets should be near zero, because their squares are summed.
        """
        return np.concatenate([target, np.square(target), np.square(target - predicted)], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """Compute R2 from sums over frames: the number of frames, then the sums of the terms of `parts`."""
        num = sums[..., :1]
        first, second, error = np.split(sums[..., 1:], 3, axis=-1)
        deviation = np.maximum(second - np.square(first) / num, 0)
        scores = [1 - error[..., list(g)].sum(axis=-1) / deviation[..., list(g)].sum(axis=-1) for g in self.groups]
        value: Float[ndarray, " ..."] = np.mean(scores, axis=0)
        return value


@dataclass(frozen=True, slots=True)
class BalancedAccuracy:
    """Mean recall over the classes that occur, rescaled to 0 at chance level. It is computed from sums over frames."""

    num_classes: int

    def parts(self, target: Int[ndarray, " n"], predicted: Int[ndarray, " n"]) -> Float[ndarray, "n 2*c"]:
        """Return for each frame the terms to sum: its class as one-hot, and the hits.

        The hits are the same one-hot if the prediction is right, and zeros if it is wrong.
        """
        present = one_hot(target, self.num_classes)
        return np.concatenate([present, present * (predicted == target)[:, None]], axis=1)

    def __call__(self, sums: Float[ndarray, "... k"]) -> Float[ndarray, " ..."]:
        """Compute the score; the last axis of `sums` is the number of frames, then the sum of each term of `parts`."""
        present, hits = np.split(sums[..., 1:], 2, axis=-1)
        num = (present > 0).sum(axis=-1)
        recall = np.where(present > 0, hits / np.where(present > 0, present, 1), 0).sum(axis=-1) / num
        value: Float[ndarray, " ..."] = above_chance(recall, num)
        return value
