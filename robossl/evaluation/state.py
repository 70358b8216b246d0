"""State probe: how well ridge regression predicts a robot's state (joints, pose) from the features of one frame.

The episodes are divided into folds. Each episode is predicted by a fit on the episodes of the other folds, and inner
folds choose the ridge penalty. For each dimension of the state that moves, R2 = 1 - squared error / squared deviation
from the mean. The result is the mean over these dimensions. One split into training and test episodes would not be
enough. For example, half of the joints hardly move in the last 8 episodes of a set of 40, so R2 would divide by almost
zero there. Intervals come from a bootstrap over episodes. All rows of the table use the same resamples.

Some dimensions move in few episodes, such as a gripper in two of ten. A dimension counts if its std is at least
`min_std` over all frames. If any one fold is left out, the std over the other frames must be at least half of
`min_std`, because every fit must see the dimension move. Such a dimension may still hardly move in a resample, or in an
inner fold that chooses the penalty. If its squared deviation there is less than `LEAST_DEVIATION` times that of all
frames, R2 divides by the squared deviation of all frames instead. For a resample, only the difference from the R2 of
all episodes is divided this way. If a dimension moves in most episodes, its R2 is not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.common.checks import check_range
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluation.subjects import make_groups
from robossl.measure.accuracy import all_pairs
from robossl.measure.bootstrap import Interval, draw_counts, percentile_interval
from robossl.measure.features import embed
from robossl.measure.metrics import least_deviation
from robossl.measure.ridge import FOLDS as INNER_FOLDS
from robossl.measure.ridge import predict_by_ridge
from robossl.measure.store_rows import StoreRows, spread_rows
from robossl.measure.subjects import Subject

LEAST_RESAMPLES = 100  # minimum number of bootstrap resamples for an interval
MAX_SEED = 2**32 - 1  # largest value that scikit-learn takes as random_state


@dataclass(frozen=True, slots=True)
class StateSettings:
    """All settings of a state probe that affect its results."""

    column: str = "state"
    split: str | None = None  # split to use; None uses every episode of the store
    folds: int = 5
    frames_per_episode: int = 60
    min_std: float = 0.05  # dimensions with a smaller std are left out; in the column's unit (rad, m)
    bootstrap: int = 2000
    random_seeds: int = 3
    seed: int = 0
    dims: tuple[int, ...] = ()  # dimensions of the column that are predicted; () means all
    output: Literal["pooled", "cls"] = "pooled"

    def check(self) -> None:
        """Check the settings that do not depend on the store.

        `bootstrap` may be 0, for an estimate without an interval.

        Raises:
            InputError: a number is outside its range.
        """
        check_range(1, frames_per_episode=self.frames_per_episode, random_seeds=self.random_seeds)
        check_range(0, min_std=self.min_std, bootstrap=self.bootstrap)
        check_range(0, MAX_SEED, seed=self.seed)


@dataclass(frozen=True, slots=True)
class StateRow:
    """One row of the table: how well the state is predicted from the features of an encoder or a baseline."""

    name: str
    kind: str
    r2: Interval  # R2, averaged over dimensions and seeds
    minus: dict[str, Interval]  # paired difference from each baseline, by the baseline's name; empty for a baseline
    penalties: tuple[float, ...]  # ridge penalties that were chosen, one for each seed and fold


@dataclass(frozen=True, slots=True)
class StateResult:
    """The result of `robossl regress`."""

    settings: StateSettings
    num_dims: int
    num_episodes: int
    rows: tuple[StateRow, ...]
    num_without: int = 0  # episodes that were left out because their source lacks the column


@dataclass(frozen=True, slots=True)
class StateProbe:
    """The frames, the values to predict from them, and the resamples of their episodes."""

    store: Store
    settings: StateSettings
    rows: Int[ndarray, " n"]
    episodes: Int[ndarray, " n"]
    values: Float[ndarray, "n k"]
    weights: Float[ndarray, "b e"]
    num_without: int = 0

    def __call__(
        self, subject: Subject, *, cache: Path | None = None, advance: Callable[[int], None] = lambda done: None
    ) -> tuple[Float[ndarray, " b"], list[float]]:
        """Predict the state from the features of one encoder or baseline; return R2 and the penalty of each fold.

        The first value of R2 is for all episodes, each counted once. The other values are for the resamples.
        """
        (features,) = embed(subject, StoreRows(self.store, self.rows), cache=cache, advance=advance).values()
        return _probe(features, self.values, self.episodes, self.weights, self.settings)


def open_probe(store: Store, settings: StateSettings) -> StateProbe:
    """Choose the frames and read the values to predict from them. Sources without the column are left out.

    Raises:
        InputError: a setting is outside its range; the column, a dimension or the split is unknown; a value is not
            finite; no dimension moves; or there are too few episodes.
    """
    settings.check()
    every = np.unique(store.episode_of(store.rows(settings.split)))
    has_column = store.has_column(settings.column, every)
    chosen = every[has_column] if has_column.any() else every
    rows = spread_rows(store, chosen, per_episode=settings.frames_per_episode)
    values = store.column(settings.column, rows).astype(np.float64)
    if not set(settings.dims) <= set(range(values.shape[1])):
        got = ", ".join(map(str, settings.dims))
        raise InputError(f"{settings.column!r} has dimensions 0 to {values.shape[1] - 1}, got --dims {got}")
    values = values[:, list(settings.dims)] if settings.dims else values
    episodes = store.episode_of(rows)
    values = values[:, _moving(values, episodes, settings)]
    weights = _resamples(len(chosen), settings)
    return StateProbe(store, settings, rows, episodes, values, weights, num_without=len(every) - len(chosen))


def run_state(
    models: tuple[str, ...],
    store: Store,
    settings: StateSettings,
    *,
    against: tuple[str, ...] = (),
    cache: Path | None = None,
    group_seeds: bool = False,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> StateResult:
    """Run the state probe on models, on their backbones with random weights, and on pooled pixels.

    Every model of `models` is compared with those of `against` too.

    Raises:
        InputError: for the reasons that `open_probe` gives; there are too few resamples for an interval; or a model
            cannot be opened.
    """
    check_range(LEAST_RESAMPLES, bootstrap=settings.bootstrap)
    probe = open_probe(store, settings)
    groups = make_groups(
        models,
        random_seeds=settings.random_seeds,
        seed=settings.seed,
        group_seeds=group_seeds,
        output=settings.output,
        against=against,
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
        num_without=probe.num_without,
    )


def _moving(
    values: Float[ndarray, "n k"], episodes: Int[ndarray, " n"], settings: StateSettings
) -> Bool[ndarray, " k"]:
    """Return which dimensions move enough, both in all frames and in the frames that each fold's fit sees.

    Raises:
        InputError: there are too few episodes, a value is not finite, or no dimension moves enough.
    """
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
    """Yield for each fold the rows (frames) to fit on and the rows to predict."""
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
    """Return R2 for each row of `weights`, and the ridge penalty of each fold.

    A row of `weights` says how often each episode counts.
    """
    predicted, penalties = np.empty_like(values), []
    for seen, held in _folds(episodes, settings):
        predicted[held], penalty = predict_by_ridge(features[seen], values[seen], episodes[seen], features[held])
        penalties.append(penalty)
    of = np.unique(episodes, return_inverse=True)[1]
    # Without centring, the sums would lose precision for a small motion about a large mean.
    centred = values - values.mean(axis=0)
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
    """Return how often each resample contains each episode: a row for each resample, a column for each episode.

    The first row is not a resample. It counts every episode once.
    """
    generator, one_stratum = np.random.default_rng(settings.seed), np.zeros(num_episodes, np.int64)
    counts = draw_counts(one_stratum, num_resamples=settings.bootstrap, generator=generator, fewer=1)
    return np.concatenate([np.ones((1, num_episodes)), counts])


def interval(r2: Float[ndarray, "s b"]) -> Interval:
    """Return the mean R2 over seeds, with a percentile interval over resamples.

    Each resample uses the R2 of one seed, and the seeds take turns. So the interval includes the spread between seeds.
    """
    resampled = r2[:, 1:].T
    return percentile_interval(float(r2[:, 0].mean()), resampled, np.arange(len(resampled)) % len(r2))
