"""State probe: how well ridge regression reads a robot's state (joints, pose) off the features of one frame.

Each episode is predicted by a fit on the other folds; folds keep episodes whole, and inner folds choose the penalty.
R2 = 1 - squared error / squared deviation from the mean, for each dimension that moves, then averaged. A single split
is not enough: in the last 8 episodes of a 40-episode set half the joints hardly move, and R2 divides by almost nothing.
Intervals resample episodes, and rows are compared on the same resamples.

A gripper may move in two episodes of ten. A dimension counts if its std is `min_std`, and half of it without any one
fold: every fit must see it move. In a resample, or in a fold that chooses the penalty, it may still hardly move. If its
squared deviation is less than `LEAST_DEVIATION` of that of all frames, R2 divides by that of all frames; in a resample
this applies only to the difference from the R2 of all episodes. If dimensions move in most episodes, R2 is the usual
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluate.subjects import make_groups
from robossl.measure.accuracy import all_pairs
from robossl.measure.bootstrap import Interval, draw_counts, percentile_interval
from robossl.measure.features import embed
from robossl.measure.metrics import least_deviation
from robossl.measure.ridge import FOLDS as INNER_FOLDS
from robossl.measure.ridge import predict_by_ridge
from robossl.measure.store_rows import StoreRows, spread_rows
from robossl.measure.subjects import Subject
from robossl.ranges import check_range

LEAST_RESAMPLES = 100  # for an interval
MAX_SEED = 2**32 - 1  # of scikit-learn's random_state


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Everything that decides the outcome."""

    column: str = "state"
    split: str | None = None  # None: every episode of the store
    folds: int = 5
    frames_per_episode: int = 60
    min_std: float = 0.05  # of a dimension (rad, m); others are left out
    bootstrap: int = 2000
    random_seeds: int = 3
    seed: int = 0
    dims: tuple[int, ...] = ()  # of the column; empty: all
    output: Literal["pooled", "cls"] = "pooled"

    def check(self) -> None:
        """Check all settings; `bootstrap` may be 0 for an estimate without an interval.

        Raises:
            InputError: a number outside its range.
        """
        check_range(1, frames_per_episode=self.frames_per_episode, random_seeds=self.random_seeds)
        check_range(0, min_std=self.min_std, bootstrap=self.bootstrap)
        check_range(0, MAX_SEED, seed=self.seed)


@dataclass(frozen=True, slots=True)
class StateRow:
    """One row of the table."""

    name: str
    kind: str
    r2: Interval  # mean over dimensions and seeds
    minus: dict[str, Interval]  # paired difference to each reference; encoders only
    penalties: tuple[float, ...]  # chosen, one per fold and seed


@dataclass(frozen=True, slots=True)
class StateResult:
    """The result of `robossl regress`."""

    settings: StateSettings
    num_dims: int
    num_episodes: int
    rows: tuple[StateRow, ...]


@dataclass(frozen=True, slots=True)
class StateProbe:
    """Frames, the values to read off them, and resamples of their episodes."""

    store: Store
    settings: StateSettings
    rows: Int[ndarray, " n"]
    episodes: Int[ndarray, " n"]
    values: Float[ndarray, "n k"]
    weights: Float[ndarray, "b e"]

    def __call__(
        self, subject: Subject, *, cache: Path | None = None, advance: Callable[[int], None] = lambda done: None
    ) -> tuple[Float[ndarray, " b"], list[float]]:
        """Return R2 on all episodes as they are, then on every resample; and the penalty of each fold."""
        (features,) = embed(subject, StoreRows(self.store, self.rows), cache=cache, advance=advance).values()
        return _probe(features, self.values, self.episodes, self.weights, self.settings)


def open_probe(store: Store, settings: StateSettings) -> StateProbe:
    """Choose frames and read their values.

    Raises:
        InputError: a setting outside its range, an unknown column, dimension or split, values that are not finite,
            no dimension that moves, too few episodes.
    """
    settings.check()
    chosen = np.unique(store.episode_of(store.rows(settings.split)))
    rows = spread_rows(store, chosen, per_episode=settings.frames_per_episode)
    values = store.column(settings.column, rows).astype(np.float64)
    if not set(settings.dims) <= set(range(values.shape[1])):
        got = ", ".join(map(str, settings.dims))
        raise InputError(f"{settings.column!r} has dimensions 0 to {values.shape[1] - 1}, got --dims {got}")
    values = values[:, list(settings.dims)] if settings.dims else values
    episodes = store.episode_of(rows)
    values = values[:, _moving(values, episodes, settings)]
    return StateProbe(store, settings, rows, episodes, values, _resamples(len(chosen), settings))


def run_state(
    models: tuple[str, ...],
    store: Store,
    settings: StateSettings,
    *,
    cache: Path | None = None,
    group_seeds: bool = False,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> StateResult:
    """Probe models, random weights of their backbones and pooled pixels.

    Raises:
        InputError: as `open_probe`; too few resamples for an interval; a model that cannot be opened.
    """
    check_range(LEAST_RESAMPLES, bootstrap=settings.bootstrap)
    probe = open_probe(store, settings)
    groups = make_groups(
        models,
        random_seeds=settings.random_seeds,
        seed=settings.seed,
        group_seeds=group_seeds,
        output=settings.output,
    )
    total = len(probe.rows) * sum(len(group.members) for group in groups)
    scored: dict[str, tuple[Float[ndarray, "s b"], tuple[float, ...]]] = {}
    for group in groups:
        each = [probe(one, cache=cache, advance=lambda done: watch("embed", done, total)) for one in group.members]
        scored[group.name] = np.stack([r2 for r2, _ in each]), tuple(p for _, penalties in each for p in penalties)
    return StateResult(
        settings=settings,
        num_dims=probe.values.shape[1],
        num_episodes=len(np.unique(probe.episodes)),
        rows=tuple(
            StateRow(
                name=group.name,
                kind=group.kind,
                r2=interval(scored[group.name][0]),
                minus={
                    name: interval(all_pairs(scored[group.name][0], scored[name][0]))
                    for name in group.references
                    if name in scored
                },
                penalties=scored[group.name][1],
            )
            for group in groups
        ),
    )


def _moving(
    values: Float[ndarray, "n k"], episodes: Int[ndarray, " n"], settings: StateSettings
) -> Bool[ndarray, " k"]:
    """Return which dimensions move enough, in every fit too; refuse values that cannot be probed."""
    num_episodes = len(np.unique(episodes))
    if not 2 <= settings.folds <= num_episodes or num_episodes - -(-num_episodes // settings.folds) < INNER_FOLDS:
        raise InputError(
            f"a state probe in {settings.folds} folds needs more than {num_episodes} episodes "
            f"(split {settings.split or 'all'}); lower --folds (2 at least) or choose another --split"
        )
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise InputError(
            f"{settings.column!r} has {count} of {values.size} values that are not finite; choose --dims or a --split "
            "without them, or correct them and ingest again"
        )
    fits = [values[seen] for seen, _ in _folds(episodes, settings)]
    moves: Bool[ndarray, " k"] = values.std(axis=0) >= settings.min_std
    moves &= np.all([(each.std(axis=0) >= settings.min_std / 2) & (np.ptp(each, axis=0) > 0) for each in fits], axis=0)
    if not moves.any():
        raise InputError(
            f"no dimension of {settings.column!r} has a std of {settings.min_std}, and half of it without any one "
            "fold; lower --min-std or choose another --column"
        )
    return moves


def _folds(
    episodes: Int[ndarray, " n"], settings: StateSettings
) -> Iterator[tuple[Int[ndarray, " s"], Int[ndarray, " h"]]]:
    """Yield the rows to fit and the rows to predict."""
    from sklearn.model_selection import GroupKFold

    folds = GroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    yield from folds.split(episodes, groups=episodes)


def _probe(
    features: Float[ndarray, "n d"],
    values: Float[ndarray, "n k"],
    episodes: Int[ndarray, " n"],
    weights: Float[ndarray, "b e"],
    settings: StateSettings,
) -> tuple[Float[ndarray, " b"], list[float]]:
    """Return R2 of each row of weights over the episodes, and the penalty of each fold."""
    predicted, penalties = np.empty_like(values), []
    for seen, held in _folds(episodes, settings):
        predicted[held], penalty = predict_by_ridge(features[seen], values[seen], episodes[seen], features[held])
        penalties.append(penalty)
    of = np.unique(episodes, return_inverse=True)[1]
    centred = values - values.mean(axis=0)  # squares of a small motion about a large mean would cancel
    sums = [_sum_by(of, x) for x in (np.ones_like(values), centred, centred**2, (values - predicted) ** 2)]
    count, first, second, error = (weights @ each for each in sums)
    deviation = second - first**2 / count
    lost = error[0] / deviation[0]
    changed = (error - lost * deviation) / least_deviation(deviation, deviation[0] * count / count[0])
    r2: Float[ndarray, " b"] = (1 - lost - changed).mean(axis=1)
    return r2, penalties


def _sum_by(of: Int[ndarray, " n"], values: Float[ndarray, "n k"]) -> Float[ndarray, "e k"]:
    sums = np.zeros((of.max() + 1, values.shape[1]))
    np.add.at(sums, of, values)
    return sums


def _resamples(num_episodes: int, settings: StateSettings) -> Float[ndarray, "b e"]:
    """Return all episodes as they are, then the draws: how often each resample has each episode."""
    generator, one_stratum = np.random.default_rng(settings.seed), np.zeros(num_episodes, np.int64)
    counts = draw_counts(one_stratum, num_resamples=settings.bootstrap, generator=generator, fewer=1)
    return np.concatenate([np.ones((1, num_episodes)), counts])


def interval(r2: Float[ndarray, "s b"]) -> Interval:
    """Return the estimate with a percentile interval; resamples take the seeds in turn."""
    resampled = r2[:, 1:].T
    return percentile_interval(float(r2[:, 0].mean()), resampled, np.arange(len(resampled)) % len(r2))
