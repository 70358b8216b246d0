"""State probe: how well a robot's state (joints, pose) can be read off one frame's features, by ridge regression.

Every episode is predicted by a fit on the others (k folds that keep episodes whole; the penalty is chosen inside each,
by folds again). R2 = 1 - squared error / squared deviation from the mean, for each dimension that moves, then averaged.
A single split would not do: of the last 8 episodes of a 40-episode set half the joints hardly move, and R2 is then
a division by nearly nothing. Intervals resample episodes, and rows are compared on the same resamples.

A gripper may move in two episodes of ten. A dimension counts if it moves by `min_std`, and by half of it whichever fold
is left out: every fit must see it move. Where few episodes are looked at (a resample, a fold that chooses the penalty)
it may stand still all the same: with less than `LEAST_DEVIATION` of the squared deviation that all frames have, it is
theirs that is divided by, and of a resample only what differs from the R2 of all episodes is divided. Where dimensions
move in most episodes that does not happen, and every R2 is the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluate.features import Embedder, embed_rows, spread_rows
from robossl.evaluate.subjects import Output, make_subjects
from robossl.ranges import check_range
from robossl.statistics import Interval, all_pairs

PENALTIES = tuple(float(penalty) for penalty in 10.0 ** np.arange(-1, 7))
INNER_FOLDS = 4
LEAST_SPREAD = 0.1  # of the features' root mean square std: a channel that is dead but for a few frames stays small
LEAST_DEVIATION = 0.1  # of that of all frames, a frame; every resample of G1's episodes has 0.12 or more in each joint
LEAST_RESAMPLES = 100  # behind an interval
MOST_SEED = 2**32 - 1  # of scikit-learn's random_state
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class StateSettings:
    """Everything that decides the outcome."""

    column: str = "state"
    split: str | None = None  # None: every episode of the store
    folds: int = 5
    frames_per_episode: int = 60
    min_std: float = 0.05  # a dimension that moves less (rad, m) is left out
    bootstrap: int = 2000
    random_seeds: int = 3
    seed: int = 0
    dims: tuple[int, ...] = ()  # of the column; none named: all
    output: Output = "pooled"

    def check(self) -> None:
        """Refuse what cannot be done; `bootstrap` may be 0 for an estimate without an interval.

        Raises:
            InputError: a number outside its range.
        """
        check_range(1, frames_per_episode=self.frames_per_episode, random_seeds=self.random_seeds)
        check_range(0, min_std=self.min_std, bootstrap=self.bootstrap)
        check_range(0, MOST_SEED, seed=self.seed)


@dataclass(frozen=True, slots=True)
class StateRow:
    """One line of the table."""

    name: str
    kind: str
    r2: Interval  # mean over dimensions; and over seeds, where there are several
    minus: dict[str, Interval]  # paired difference to each reference; encoders only
    penalties: tuple[float, ...]  # chosen, one a fold and seed


@dataclass(frozen=True, slots=True)
class StateResult:
    """A whole probe."""

    settings: StateSettings
    num_dims: int
    num_episodes: int
    rows: tuple[StateRow, ...]


@dataclass(frozen=True, slots=True)
class Probe:
    """What is to be read off features: which frames, what moves in them, and how their episodes are resampled."""

    store: Store
    settings: StateSettings
    rows: Int[ndarray, " n"]
    episodes: Int[ndarray, " n"]
    values: Float[ndarray, "n k"]
    weights: Float[ndarray, "b e"]

    def __call__(
        self, embedder: Embedder, *, cache: Path | None = None, advance: Callable[[int], None] = lambda done: None
    ) -> tuple[Float[ndarray, " b"], list[float]]:
        """R2 on every resample, the first of which is all episodes as they are; and the penalty of each fold."""
        features = embed_rows(embedder, self.store, self.rows, cache=cache, advance=advance)
        return _probe(features, self.values, self.episodes, self.weights, self.settings)


def open_probe(store: Store, settings: StateSettings) -> Probe:
    """Choose frames and read their values.

    Raises:
        InputError: a setting outside its range, no such column, dimension or split, values that are not finite,
            nothing that moves, too few episodes.
    """
    settings.check()
    found = np.unique(store.episode_of(store.rows(settings.split)))
    rows = spread_rows(store, found, per_episode=settings.frames_per_episode)
    values = store.column(settings.column, rows).astype(np.float64)
    if not set(settings.dims) <= set(range(values.shape[1])):
        got = ", ".join(map(str, settings.dims))
        raise InputError(f"{settings.column!r} has dimensions 0 to {values.shape[1] - 1}, got --dims {got}")
    values = values[:, list(settings.dims)] if settings.dims else values
    episodes = store.episode_of(rows)
    values = values[:, _moving(values, episodes, settings)]
    return Probe(store, settings, rows, episodes, values, _resamples(len(found), settings))


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
        InputError: as `open_probe`; too few resamples for an interval; a model that cannot be loaded.
    """
    check_range(LEAST_RESAMPLES, bootstrap=settings.bootstrap)
    probe = open_probe(store, settings)
    subjects = make_subjects(
        models,
        random_seeds=settings.random_seeds,
        seed=settings.seed,
        group_seeds=group_seeds,
        output=settings.output,
    )
    total = len(probe.rows) * sum(len(subject.embedders) for subject in subjects)
    scored: dict[str, tuple[Float[ndarray, "s b"], tuple[float, ...]]] = {}
    for subject in subjects:
        each = [probe(one, cache=cache, advance=lambda done: watch("embed", done, total)) for one in subject.embedders]
        scored[subject.name] = np.stack([r2 for r2, _ in each]), tuple(p for _, penalties in each for p in penalties)
    return StateResult(
        settings=settings,
        num_dims=probe.values.shape[1],
        num_episodes=len(np.unique(probe.episodes)),
        rows=tuple(
            StateRow(
                name=subject.name,
                kind=subject.kind,
                r2=interval(scored[subject.name][0]),
                minus={
                    name: interval(all_pairs(scored[subject.name][0], scored[name][0]))
                    for name in subject.references
                    if name in scored
                },
                penalties=scored[subject.name][1],
            )
            for subject in subjects
        ),
    )


def _moving(
    values: Float[ndarray, "n k"], episodes: Int[ndarray, " n"], settings: StateSettings
) -> Bool[ndarray, " k"]:
    """Which dimensions move enough to be read, in every fit too; refuses what cannot be probed."""
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
            "without them, or mend them and ingest again"
        )
    fits = [values[seen] for seen, _ in _folds(episodes, settings)]
    moves: Bool[ndarray, " k"] = values.std(axis=0) >= settings.min_std
    moves &= np.all([(each.std(axis=0) >= settings.min_std / 2) & (np.ptp(each, axis=0) > 0) for each in fits], axis=0)
    if not moves.any():
        raise InputError(
            f"no dimension of {settings.column!r} has a std of {settings.min_std}, and half of it whichever fold is "
            "left out; lower --min-std or choose another --column"
        )
    return moves


def _folds(
    episodes: Int[ndarray, " n"], settings: StateSettings
) -> Iterator[tuple[Int[ndarray, " s"], Int[ndarray, " h"]]]:
    """Rows that are fitted and rows that are predicted."""
    from sklearn.model_selection import GroupKFold

    folds = GroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    yield from folds.split(episodes, groups=episodes)


def ridge(
    train: Float[ndarray, "n d"], target: Float[ndarray, "n k"], groups: Int[ndarray, " n"], test: Float[ndarray, "m d"]
) -> tuple[Float[ndarray, "m k"], float]:
    """Predictions for `test` and the penalty that cross-validation over groups preferred, for all dimensions alike."""
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GroupKFold

    train, test = train.astype(np.float64), test.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0)
    live = std > 1e-6 * np.abs(mean) + 1e-12
    least = LEAST_SPREAD * np.sqrt(np.square(std[live]).mean()) if live.any() else 0.0
    std = np.where(live, np.maximum(std, least), np.inf)  # a feature that never changes stays at zero
    train, test = (train - mean) / std, (test - mean) / std
    scale, num_dims = target.std(axis=0), target.shape[1]
    scores = np.zeros(len(PENALTIES))
    repeated = np.tile(target / scale, len(PENALTIES))  # every penalty from one decomposition
    for seen, held in GroupKFold(INNER_FOLDS).split(train, target, groups):
        search = Ridge(np.repeat(PENALTIES, num_dims), solver="svd").fit(train[seen], repeated[seen])
        error = np.square(repeated[held] - search.predict(train[held])).mean(axis=0)
        lost = error / _divisor(repeated[held].var(axis=0), np.ones(len(error)))
        scores -= lost.reshape(len(PENALTIES), num_dims).mean(axis=1)
    penalty = PENALTIES[int(scores.argmax())]
    model = Ridge(penalty, solver="svd").fit(train, target / scale)
    predicted: Float[ndarray, "m k"] = model.predict(test).reshape(-1, num_dims) * scale  # of one dimension: a column
    return predicted, penalty


def _probe(
    features: Float[ndarray, "n d"],
    values: Float[ndarray, "n k"],
    episodes: Int[ndarray, " n"],
    weights: Float[ndarray, "b e"],
    settings: StateSettings,
) -> tuple[Float[ndarray, " b"], list[float]]:
    """R2 on every resample of the episodes, the first of them all as they are."""
    predicted, penalties = np.empty_like(values), []
    for seen, held in _folds(episodes, settings):
        predicted[held], penalty = ridge(features[seen], values[seen], episodes[seen], features[held])
        penalties.append(penalty)
    of = np.unique(episodes, return_inverse=True)[1]
    centred = values - values.mean(axis=0)  # or their squares would cancel where little moves about a far mean
    sums = [_sum_by(of, x) for x in (np.ones_like(values), centred, centred**2, (values - predicted) ** 2)]
    count, first, second, error = (weights @ each for each in sums)
    deviation = second - first**2 / count
    lost = error[0] / deviation[0]
    changed = (error - lost * deviation) / _divisor(deviation, deviation[0] * count / count[0])
    r2: Float[ndarray, " b"] = (1 - lost - changed).mean(axis=1)
    return r2, penalties


def _divisor(deviation: Float[ndarray, "*b k"], of_all: Float[ndarray, "*b k"]) -> Float[ndarray, "*b k"]:
    """The squared deviation to divide by: its own, or that of all frames where hardly anything moves."""
    return np.where(deviation < LEAST_DEVIATION * of_all, of_all, deviation)


def _sum_by(of: Int[ndarray, " n"], values: Float[ndarray, "n k"]) -> Float[ndarray, "e k"]:
    sums = np.zeros((of.max() + 1, values.shape[1]))
    np.add.at(sums, of, values)
    return sums


def _resamples(num_episodes: int, settings: StateSettings) -> Float[ndarray, "b e"]:
    """How often each resample drew each episode; one fewer is drawn than there are, as in statistics.py."""
    draw = np.random.default_rng(settings.seed)
    share = np.full(num_episodes, 1 / num_episodes)
    drawn = draw.multinomial(max(2, num_episodes - 1), share, size=settings.bootstrap)
    return np.concatenate([np.ones((1, num_episodes)), drawn])


def interval(r2: Float[ndarray, "s b"]) -> Interval:
    """The estimate with a percentile interval; where there are seeds, resamples go through them in turn."""
    turn = np.arange(r2.shape[1] - 1) % len(r2)
    low, high = np.quantile(r2[turn, 1 + np.arange(len(turn))], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(r2[:, 0].mean()), float(low), float(high))
