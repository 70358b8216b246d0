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
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import UP_TO_ONE, Draws, Figure, missing, unseen_share
from robossl.probes.frames import Label
from robossl.probes.label_heads import MIN_FRAMES, LabelHead, Target, fit_head
from robossl.probes.label_maps import ViewLabel
from robossl.probes.result import UNKNOWN, UNREADABLE, Retention

# Smallest score above chance at which a label counts as readable. It is compared with the lower bound of the score that
# the label's head has on clean frames.
READABLE = 0.15
# Lower limit of retention. It is needed because R2, and so the score on transformed frames, has no lower limit.
WORST = -1.0
HeadName = Literal["clean", "same", "augmented"]

__all__ = [
    "MIN_FRAMES",
    "READABLE",
    "HeadName",
    "LabelHead",
    "RetentionTask",
    "Target",
    "fit_augmented",
    "fit_task",
    "retention",
]


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
    head = fit_head(train, [(reference, train)], reference_clusters)
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
    return fit_head(train, pairs, np.concatenate([reference_clusters, reference_clusters]))


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
