"""Split frames into reference (for fits) and evaluation; no cluster is in both."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from robossl.errors import InputError
from robossl.probes.frames import ProbeFrames, Split

MIN_CLUSTERS = 20  # in the evaluation; with fewer, intervals are too wide
_NUM_SAMPLED = 32  # frames, to detect that all are equal


def split_frames(frames: ProbeFrames, *, n_reference: int = 2000, n_evaluation: int = 500, seed: int = 0) -> Split:
    """Draw whole clusters for each side, and frames evenly from the clusters of a side.

    The evaluation has its share of the frames, and at least 20 clusters (or half of all clusters, if that is less).
    With fewer frames than wanted, both sides are smaller.

    Raises:
        InputError: fewer than two clusters, or frames that are all equal.
    """
    if min(n_reference, n_evaluation) < 1:
        raise InputError(f"both sides of a split need a frame, got {n_reference} and {n_evaluation}")
    rng = np.random.default_rng((seed, int.from_bytes(b"split", "big")))
    names, counts = np.unique(frames.clusters, return_counts=True)
    if len(names) < 2:
        raise InputError(
            f"{frames.name} has {len(frames.clusters)} frame(s) of {len(names)} {frames.cluster_key}, "
            f"a probe needs two or more that are independent; give it more data"
        )
    _refuse_all_alike(frames)
    order = rng.permutation(len(names))
    share = n_evaluation / (n_reference + n_evaluation)
    num_judged = int(np.searchsorted(np.cumsum(counts[order]), share * counts.sum())) + 1
    num_judged = min(max(num_judged, min(MIN_CLUSTERS, len(names) // 2)), len(names) - 1)
    judged = np.isin(frames.clusters, names[order[:num_judged]])
    return Split(
        reference=_evenly(np.flatnonzero(~judged), frames.clusters, n_reference, rng),
        evaluation=_evenly(np.flatnonzero(judged), frames.clusters, n_evaluation, rng),
    )


def _evenly(
    positions: Int[ndarray, " n"], clusters: Int[ndarray, " m"], count: int, rng: np.random.Generator
) -> Int[ndarray, " k"]:
    """Return `count` of the positions in order, with one of each cluster before a second one of any."""
    mixed = rng.permutation(positions)
    own = clusters[mixed]
    by_cluster = np.argsort(own, kind="stable")
    _, starts, counts = np.unique(own[by_cluster], return_index=True, return_counts=True)
    turn = np.empty(len(mixed), np.int64)
    turn[by_cluster] = np.arange(len(mixed)) - np.repeat(starts, counts)
    return np.sort(mixed[np.argsort(turn, kind="stable")[:count]])


def _refuse_all_alike(frames: ProbeFrames) -> None:
    num_frames = len(frames.clusters)
    at = np.unique(np.linspace(0, num_frames - 1, min(num_frames, _NUM_SAMPLED)).astype(np.int64))
    pixels = frames.clean(at)
    if (pixels == pixels[0]).all():
        raise InputError(
            f"{frames.name}: {len(at)} of {num_frames} frames were compared and all are equal; "
            f"they cannot tell encoders apart, give it other data"
        )
