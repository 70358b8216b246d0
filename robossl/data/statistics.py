"""Statistics of a store: what it holds, and how bright, moving and repetitive its frames are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from robossl.data.doctor.facts import PictureFacts
from robossl.data.doctor.picture_checks import near_duplicates
from robossl.data.store import Store

MIN_STRETCH_SECONDS = 0.5  # shorter stretches of near-duplicates are not counted
TOP_CLASSES = 12  # classes of a label that are counted by name


@dataclass(frozen=True, slots=True)
class Spread:
    """A number over episodes or frames: its 5 %, 50 % and 95 % quantiles and its mean."""

    mean: float
    p5: float
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Counts are those of the whole store; what needs decoding is measured on `num_measured` of its episodes."""

    path: str
    hours: float
    num_frames: int
    num_episodes: int
    seconds: Spread  # length of an episode
    sizes: dict[str, int]  # width x height in pixels -> number of frames
    frames_per_s: dict[str, int]  # frames per second, by the median step -> number of episodes
    cameras: dict[str, int]  # name -> number of episodes
    splits: dict[str, int]  # name -> number of episodes
    labels: dict[str, dict[str, int]]  # label -> class -> number of episodes; the most frequent classes
    num_classes: dict[str, int]
    licences: tuple[str, ...]
    num_measured: int
    brightness: Spread  # mean grey level of an episode, 0 (black) to 255 (white)
    motion: Spread  # mean absolute difference of neighbouring frames at 32x24 pixels, in grey levels, over frames
    near_duplicate_share: float  # share of frames that nearly equal the frame before
    dropped_frames: int  # frames that ingest dropped because they repeat the frame before


@dataclass(frozen=True, slots=True)
class Measured:
    """One number per measured episode or frame, for histograms."""

    seconds: Float64[ndarray, " all"]
    brightness: Float64[ndarray, " episodes"]
    motion: Float64[ndarray, " frames"]
    near_duplicates: Float64[ndarray, " episodes"]


def measure_frames(store: Store, pictures: Sequence[PictureFacts]) -> Measured:
    """Return the numbers of the episodes that were decoded."""
    duplicates = [near_duplicates(picture, MIN_STRETCH_SECONDS) | picture.repeats for picture in pictures]
    return Measured(
        np.asarray(store.end_seconds, np.float64),
        np.array([picture.brightness for picture in pictures]),
        np.concatenate([np.zeros(0), *(picture.motion for picture in pictures if len(picture.motion))]),
        np.array([found.mean() for found in duplicates]),
    )


def compute_statistics(store: Store, pictures: Sequence[PictureFacts], measured: Measured) -> StoreStatistics:
    """Return the statistics of a store, of which some episodes were decoded."""
    num_frames = np.array([len(picture.seconds) for picture in pictures])
    sizes = Counter(f"{width}x{height}" for height, width in np.asarray(store.frame_hw).tolist())
    labels = {name: Counter(str(each) for each in store.labels(name) if each) for name in store.label_names}
    splits = {name or "(no split)": counts["episodes"] for name, counts in store.manifest.splits.items()}
    return StoreStatistics(
        path=str(store.path),
        hours=round(float(store.end_seconds.sum()) / 3600, 4),
        num_frames=store.num_frames,
        num_episodes=store.num_episodes,
        seconds=_spread(measured.seconds),
        sizes=dict(sizes.most_common()),
        frames_per_s=_count_rates(store),
        cameras=dict(labels["camera"].most_common()) if "camera" in labels else {},
        splits=splits,
        labels={name: dict(counts.most_common(TOP_CLASSES)) for name, counts in labels.items()},
        num_classes={name: len(counts) for name, counts in labels.items()},
        licences=store.manifest.licences,
        num_measured=len(pictures),
        brightness=_spread(measured.brightness),
        motion=_spread(measured.motion),
        near_duplicate_share=round(float((measured.near_duplicates * num_frames).sum() / max(1, num_frames.sum())), 4),
        dropped_frames=store.manifest.duplicate_frames,
    )


def _count_rates(store: Store) -> dict[str, int]:
    starts, rates = store.episode_start, Counter[str]()
    for first, end in pairwise(starts):
        steps = np.diff(store.time_seconds[first:end])
        steps = steps[steps > 0]
        rates[f"{1 / np.median(steps):.3g}" if len(steps) else "none (single image)"] += 1
    return dict(rates.most_common())


def _spread(values: ndarray) -> Spread:
    if len(values) == 0:
        return Spread(0.0, 0.0, 0.0, 0.0)
    low, median, high = np.quantile(values, [0.05, 0.5, 0.95])
    return Spread(*(round(float(each), 3) for each in (values.mean(), low, median, high)))
