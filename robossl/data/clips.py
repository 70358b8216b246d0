"""Check, before training, that a store can supply the clips (frames at given times) that a method asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from robossl.data.store import Store
from robossl.data.times import span_seconds
from robossl.errors import InputError
from robossl.views import ClipSpec


def moving_rows(store: Store, rows: Int64[ndarray, " n"]) -> Int64[ndarray, " m"]:
    """Return those of `rows` whose episode has more than one frame.

    A store may also hold single images, which cannot form clips.
    """
    moving: Int64[ndarray, " m"] = rows[np.diff(store.episode_start)[store.episode_of(rows)] > 1]
    return moving


def median_interval_seconds(store: Store, rows: Int64[ndarray, " n"]) -> float:
    """Return the median time between neighbouring frames of an episode; 0.0 if every episode is a single frame."""
    same = np.diff(store.episode_of(rows)) == 0
    return float(np.median(np.diff(store.time_seconds[rows])[same])) if same.any() else 0.0


def check_clips(store: Store, rows: Int64[ndarray, " n"], clips: Iterable[ClipSpec]) -> None:
    """Check that the episodes of these rows can supply the clips.

    Raises:
        InputError: every episode is a single frame; a clip is longer than every episode; the frames of a clip are
            closer in time than the stored frames; or a clip needs a column that the store lacks.
    """
    moving = moving_rows(store, rows)
    for clip in clips:
        if clip.has_time and not len(moving):
            raise InputError(
                f"{store.path}: the method learns from video, but all {len(rows)} episodes of the split are single "
                "frames; ingest video, choose another data.split or a method for images such as simclr"
            )
        longest = float(store.end_seconds[store.episode_of(moving)].max()) if clip.has_time else 0.0
        if span_seconds(clip) > longest + 1e-6:
            raise InputError(
                f"{store.path}: the method needs {span_seconds(clip):.2f} s of continuous video, but the longest "
                f"episode of the split lasts {longest:.2f} s; shorten the method's clips or ingest longer video"
            )
        interval = median_interval_seconds(store, moving) if clip.has_time else 0.0
        if 0 < clip.stride_seconds < 0.99 * interval:
            raise InputError(
                f"{store.path}: the method takes frames {clip.stride_seconds:g} s apart, but those of the split are "
                f"{interval:.2g} s apart, so it would use the same frame twice; set the method's seconds to "
                f"{interval:.2g} or more, or ingest video with a higher frame rate"
            )
        if clip.columns:
            first = np.unique(store.episode_of(moving), return_index=True)[1]
            for name in clip.columns:
                store.column(name, moving[first])


def check_discrete(store: Store, rows: Int64[ndarray, " n"], num_values: Mapping[str, int]) -> None:
    """Check that discrete columns hold whole numbers from 0, in all frames of the episodes of these rows.

    Args:
        store: The store.
        rows: The frames that clips are drawn for. An episode that is a single frame has no clips.
        num_values: Number of different values of each discrete column, by name.

    Raises:
        InputError: a column is wider than one number, or holds another number.
    """
    episodes = np.unique(store.episode_of(moving_rows(store, rows)))
    starts = store.episode_start
    every = np.concatenate([np.arange(0), *(np.arange(starts[each], starts[each + 1]) for each in episodes)])
    for name, count in num_values.items() if len(every) else ():
        values = store.column(name, every)
        if values.shape[1] != 1:
            raise InputError(
                f"discrete column {name!r} must be one number a frame, it is {values.shape[1]} wide; "
                "put it under method.columns"
            )
        if not np.isin(values, np.arange(count)).all():
            raise InputError(
                f"{store.path}: discrete column {name!r} must hold whole numbers from 0 to {count - 1}, it has "
                f"{values.min():g} to {values.max():g}; set method.discrete_columns.{name} to their number or put it "
                "under method.columns"
            )
