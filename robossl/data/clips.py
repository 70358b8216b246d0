"""Whether a store can give the clips that a method asks for, said before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from robossl.data.store import Store
from robossl.data.times import span_seconds
from robossl.errors import InputError
from robossl.views import ClipSpec


def moving_rows(store: Store, rows: Int64[ndarray, " n"]) -> Int64[ndarray, " m"]:
    """Those of `rows` in episodes of more than one frame: images in a mixed store are no clips."""
    moving: Int64[ndarray, " m"] = rows[np.diff(store.episode_start)[store.episode_of(rows)] > 1]
    return moving


def median_interval_seconds(store: Store, rows: Int64[ndarray, " n"]) -> float:
    """How far apart frames of a video are, in the middle case."""
    same = np.diff(store.episode_of(rows)) == 0
    return float(np.median(np.diff(store.time_seconds[rows])[same])) if same.any() else 0.0


def check_clips(store: Store, rows: Int64[ndarray, " n"], clips: Iterable[ClipSpec]) -> None:
    """Refuse clips that no episode of these rows can give.

    Raises:
        InputError: every episode is a single frame, a clip is longer than every episode or finer than the frames are
            apart, a column is missing.
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
                f"{store.path}: the method needs {span_seconds(clip):.2f} s of video in one piece, the longest episode "
                f"of the split lasts {longest:.2f} s; shorten the method's clips or ingest longer video"
            )
        interval = median_interval_seconds(store, moving) if clip.has_time else 0.0
        if 0 < clip.stride_seconds < 0.99 * interval:
            raise InputError(
                f"{store.path}: the method takes frames {clip.stride_seconds:g} s apart, but those of the split are "
                f"{interval:.2g} s apart, so that it would take one twice; set the method's seconds to {interval:.2g} "
                "or more, or ingest video of more frames a second"
            )
        if clip.columns:
            first = np.unique(store.episode_of(moving), return_index=True)[1]
            for name in clip.columns:
                store.column(name, moving[first])
