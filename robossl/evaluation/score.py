"""Score encoders and baselines on one label: run a protocol, then compute accuracies and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.data.store import Store
from robossl.evaluation.protocol import EvaluationProtocol
from robossl.evaluation.result import Kind, Result, ScoreRow
from robossl.evaluation.task import LabelTask
from robossl.measure.accuracy import EpisodeResamples, resample_episodes
from robossl.measure.bootstrap import Interval
from robossl.measure.metrics import balanced_accuracy
from robossl.measure.store_rows import spread_rows
from robossl.measure.subjects.references import MAJORITY

Details = Mapping[str, float | int | bool | str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An encoder or baseline that gets a row of the table.

    `features` has an array for each seed. Each array has a row for each evaluated frame.
    """

    name: str
    kind: Kind
    features: tuple[Float[ndarray, "n d"], ...]
    references: tuple[str, ...] = ()  # names of the rows that this row is compared with


@dataclass(frozen=True, slots=True)
class Hits:
    """Correct predictions. The arrays have a row for each seed and a column for each test episode."""

    episodes: Float[ndarray, "s e"]  # 1 if the class with the highest mean score over the frames is correct, else 0
    frames: Float[ndarray, "s e"]  # share of the episode's frames that are classified correctly
    details: tuple[Details, ...]


@dataclass(frozen=True, slots=True)
class FrameRows:
    """The evaluated frames: their row numbers in the store (ascending), and the episode of each frame."""

    rows: Int[ndarray, " n"]
    episodes: Int[ndarray, " n"]

    @staticmethod
    def of(store: Store, episodes: Int[ndarray, " e"], *, per_episode: int) -> FrameRows:
        """Choose `per_episode` evenly spaced frames of each episode."""
        rows = spread_rows(store, episodes, per_episode=per_episode)
        return FrameRows(rows, store.episode_of(rows))


def score_task(
    task: LabelTask,
    frames: FrameRows,
    candidates: list[Candidate],
    protocol: EvaluationProtocol,
    *,
    protocol_name: str,
    num_resamples: int,
    seed: int,
    advance: Callable[[int], None] = lambda fits: None,
) -> Result:
    """Run a protocol for every candidate (encoder or baseline), and compare them on the same resampled episodes."""
    assert len({MAJORITY, *(candidate.name for candidate in candidates)}) == 1 + len(candidates), "a name repeats"
    hits: dict[str, Hits] = {MAJORITY: _majority(task)}
    for candidate in candidates:
        hits[candidate.name] = _hits(task, frames, candidate.features, protocol, seed=seed)
        advance(len(candidate.features))
    test_frames = np.isin(frames.episodes, task.test)
    sizes = np.unique(frames.episodes[test_frames], return_counts=True)[1].astype(np.float64)
    resamples = resample_episodes(task.test_labels, num_resamples=num_resamples, seed=seed)
    ordered = [*candidates, Candidate(MAJORITY, "majority", ())]
    return Result(
        protocol=protocol_name,
        label=task.label,
        train_split=task.train_name,
        test_split=task.test_name,
        classes=task.classes,
        dropped=task.dropped,
        num_train_episodes=len(task.train),
        num_test_episodes=len(task.test),
        num_test_frames=int(sizes.sum()),
        validated_by=task.grouped_by,
        rows=tuple(_row(candidate, hits, task, resamples, sizes) for candidate in ordered),
    )


def _row(
    candidate: Candidate,
    hits: dict[str, Hits],
    task: LabelTask,
    resamples: EpisodeResamples,
    sizes: Float[ndarray, " e"],
) -> ScoreRow:
    own = hits[candidate.name]
    minus: dict[str, Interval] = {}
    for reference in candidate.references:
        minus[reference] = resamples.paired(own.episodes, hits[reference].episodes)
    return ScoreRow(
        name=candidate.name,
        kind=candidate.kind,
        accuracy=resamples.interval(own.episodes),
        frame_accuracy=resamples.interval(own.frames, sizes),
        recall={c.name: float(own.episodes[:, task.test_labels == i].mean()) for i, c in enumerate(task.classes)},
        minus=minus,
        details=own.details,
    )


def _majority(task: LabelTask) -> Hits:
    commonest = int(np.bincount(task.train_labels).argmax())
    hits = (task.test_labels == commonest).astype(np.float64)[None]
    return Hits(hits, hits, ({"class": task.classes[commonest].name},))


def _hits(
    task: LabelTask,
    frames: FrameRows,
    features: tuple[Float[ndarray, "n d"], ...],
    protocol: EvaluationProtocol,
    *,
    seed: int,
) -> Hits:
    """Run the protocol on the features of each seed; return which predictions are correct."""
    train, test = np.isin(frames.episodes, task.train), np.isin(frames.episodes, task.test)
    train_episode = np.searchsorted(task.train, frames.episodes[train])
    test_episode = np.searchsorted(task.test, frames.episodes[test])
    labels, groups, truth = task.train_labels[train_episode], task.groups[train_episode], task.test_labels
    episodes, by_frame, details = [], [], []
    for x in features:
        predictions = protocol(x[train], labels, groups, x[test], seed=seed)
        right = predictions.scores.argmax(axis=1) == truth[test_episode]
        predicted = _mean_by(test_episode, predictions.scores).argmax(axis=1)
        episodes.append(predicted == truth)
        by_frame.append(_mean_by(test_episode, right[:, None].astype(np.float64))[:, 0])
        details.append({"balanced_accuracy": balanced_accuracy(truth, predicted), **predictions.details})
    return Hits(np.array(episodes, dtype=np.float64), np.array(by_frame), tuple(details))


def _mean_by(group: Int[ndarray, " n"], values: Float[ndarray, "n k"]) -> Float[ndarray, "g k"]:
    # Frames of the same group are next to each other, so a group starts where the number changes.
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    counts = np.diff(starts, append=len(group))
    sums: Float[ndarray, "g k"] = np.add.reduceat(values.astype(np.float64), starts, axis=0)
    return sums / counts[:, None]
