"""Temporal probe: whether the features of an episode are in the order of time, and whether episodes can be aligned.

Two scores of each episode, both Kendall's tau-b: 1 is the order of time, 0 is no order, -1 is the reverse.

- `progress`: between time and the negative distance to the episode's last frame, the goal (VIP, arXiv:2210.00030).
  A policy or a reward that measures the distance to a goal picture needs it.
- `alignment`: between time and the time of the nearest frame in another episode with the same label, the mean over up
  to `PARTNERS` of them (time-contrastive networks, arXiv:1704.06888; Kendall's tau as in TCC, arXiv:1904.07846).

Frames are evenly spaced in each episode, and distances are Euclidean. Intervals come from a bootstrap over episodes,
with the same resamples for all rows. Alignments share episodes, so their intervals are a little too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.common.checks import check_range
from robossl.data.store import Store
from robossl.errors import InputError
from robossl.evaluation.state import LEAST_RESAMPLES, MAX_SEED
from robossl.evaluation.subjects import make_groups
from robossl.measure.accuracy import all_pairs
from robossl.measure.bootstrap import Interval, draw_counts, percentile_interval
from robossl.measure.features import embed
from robossl.measure.store_rows import StoreRows, spread_rows

LEAST_EPISODES = 5  # minimum number of episodes for an interval
LEAST_FRAMES = 4  # minimum number of frames of an episode
PARTNERS = 4  # other episodes that an episode is aligned with


@dataclass(frozen=True, slots=True)
class TemporalSettings:
    """All settings of a temporal probe that affect its results."""

    split: str | None = None  # split to use; None uses every episode of the store
    label: str | None = None  # episodes with the same value are aligned; None: no alignment
    frames_per_episode: int = 32
    bootstrap: int = 2000
    random_seeds: int = 3
    seed: int = 0
    output: Literal["pooled", "cls"] = "pooled"


@dataclass(frozen=True, slots=True)
class TemporalRow:
    """The scores of an encoder or a baseline, by the name of the score."""

    name: str
    kind: str
    scores: dict[str, Interval]
    minus: dict[str, dict[str, Interval]]  # paired differences from each baseline, by score, then by baseline


@dataclass(frozen=True, slots=True)
class TemporalResult:
    """The result of `robossl temporal`."""

    settings: TemporalSettings
    num_episodes: dict[str, int]  # episodes that each score is the mean of
    rows: tuple[TemporalRow, ...]


@dataclass(frozen=True, slots=True)
class _Episodes:
    rows: Int[ndarray, " n"]
    of: Int[ndarray, " n"]  # number of each frame's episode, from 0
    partners: dict[int, tuple[int, ...]]  # episodes that each episode is aligned with


def run_temporal(
    models: tuple[str, ...],
    store: Store,
    settings: TemporalSettings,
    *,
    against: tuple[str, ...] = (),
    cache: Path | None = None,
    watch: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> TemporalResult:
    """Run the temporal probe on models, on their backbones with random weights, and on pooled pixels.

    Raises:
        InputError: a setting is outside its range, the split or the label is unknown, there are too few episodes, or a
            model cannot be opened.
    """
    episodes = _choose(store, settings)
    groups = make_groups(
        models, random_seeds=settings.random_seeds, seed=settings.seed, output=settings.output, against=against
    )
    total = len(episodes.rows) * sum(len(group.members) for group in groups)
    scored: dict[str, dict[str, Float[ndarray, "s b"]]] = {}
    counts: dict[str, int] = {}
    for group in groups:
        each = []
        for subject in group.members:
            frames = StoreRows(store, episodes.rows)
            (features,) = embed(subject, frames, cache=cache, advance=lambda done: watch("embed", done, total)).values()
            each.append(score_episodes(features, episodes.of, episodes.partners))
        counts = {name: len(values) for name, values in each[0].items()}
        scored[group.name] = {name: np.stack([_resample(values[name], settings) for values in each]) for name in counts}
    rows = tuple(
        TemporalRow(
            name=group.name,
            kind=group.kind,
            scores={score: _interval(resampled) for score, resampled in scored[group.name].items()},
            minus={
                score: {
                    other: _interval(all_pairs(resampled, scored[other][score]))
                    for other in group.references
                    if other in scored
                }
                for score, resampled in scored[group.name].items()
            },
        )
        for group in groups
    )
    return TemporalResult(settings, counts, rows)


def score_episodes(
    features: Float[ndarray, "n d"], of: Int[ndarray, " n"], partners: Mapping[int, Sequence[int]]
) -> dict[str, Float[ndarray, " e"]]:
    """Return the scores of each episode by name; `alignment` only if there are partners.

    Args:
        features: Features of the frames, in the order of time within each episode.
        of: Number of each frame's episode.
        partners: The episodes that each episode is aligned with.
    """
    split = [features[of == episode].astype(np.float64) for episode in np.unique(of)]
    found = {"progress": np.array([_progress(each) for each in split])}
    if partners:
        pairs = ([_align(split[episode], split[other]) for other in others] for episode, others in partners.items())
        found["alignment"] = np.array([np.mean(each) for each in pairs])
    return found


def _progress(features: Float[ndarray, "t d"]) -> float:
    distance = np.linalg.norm(features[:-1] - features[-1], axis=1)
    return _tau(-distance)


def _align(features: Float[ndarray, "t d"], other: Float[ndarray, "u d"]) -> float:
    squared = (features**2).sum(1)[:, None] + (other**2).sum(1) - 2 * features @ other.T
    return _tau(squared.argmin(axis=1))


def _tau(values: ndarray) -> float:
    """Return Kendall's tau-b with the order of time; 0 if all values are equal, which is no order."""
    from scipy.stats import kendalltau

    tau = kendalltau(np.arange(len(values)), values).statistic
    return 0.0 if np.isnan(tau) else float(tau)


def _choose(store: Store, settings: TemporalSettings) -> _Episodes:
    check_range(LEAST_FRAMES, frames_per_episode=settings.frames_per_episode)
    check_range(1, random_seeds=settings.random_seeds)
    check_range(LEAST_RESAMPLES, bootstrap=settings.bootstrap)
    check_range(0, MAX_SEED, seed=settings.seed)
    chosen = np.unique(store.episode_of(store.rows(settings.split)))
    rows = spread_rows(store, chosen, per_episode=settings.frames_per_episode)
    numbers = store.episode_of(rows)
    long = [episode for episode in chosen if (numbers == episode).sum() >= LEAST_FRAMES]
    if len(long) < LEAST_EPISODES:
        raise InputError(
            f"{len(long)} episodes of {store.path} have {LEAST_FRAMES} frames or more "
            f"(split {settings.split or 'all'}), {LEAST_EPISODES} are needed; choose another --split"
        )
    rows = rows[np.isin(numbers, long)]
    of = np.searchsorted(long, store.episode_of(rows))
    return _Episodes(rows, of, _partners(store, np.array(long), settings))


def _partners(store: Store, episodes: Int[ndarray, " e"], settings: TemporalSettings) -> dict[int, tuple[int, ...]]:
    """Draw for each episode up to PARTNERS others with the same label; episodes without one are left out."""
    if settings.label is None:
        return {}
    values = np.array([str(value) for value in store.labels(settings.label)])[episodes]
    generator = np.random.default_rng(settings.seed)
    found: dict[int, tuple[int, ...]] = {}
    for episode, value in enumerate(values):
        others = np.flatnonzero((values == value) & (np.arange(len(values)) != episode))
        if value and len(others):
            found[episode] = tuple(map(int, generator.permutation(others)[:PARTNERS]))
    if len(found) < LEAST_EPISODES:
        raise InputError(
            f"{len(found)} episodes share their {settings.label} with another, {LEAST_EPISODES} are needed to align "
            "episodes; choose another --label, or leave it out"
        )
    return found


def _resample(values: Float[ndarray, " e"], settings: TemporalSettings) -> Float[ndarray, " b"]:
    """Return the mean over episodes: first over all of them, then over each resample."""
    generator = np.random.default_rng(settings.seed)
    one_stratum = np.zeros(len(values), np.int64)
    counts = draw_counts(one_stratum, num_resamples=settings.bootstrap, generator=generator, fewer=1)
    means: Float[ndarray, " b"] = np.concatenate([[values.mean()], counts @ values / counts.sum(1)])
    return means


def _interval(resampled: Float[ndarray, "s b"]) -> Interval:
    draws = resampled[:, 1:].T
    return percentile_interval(float(resampled[:, 0].mean()), draws, np.arange(len(draws)) % len(resampled))
