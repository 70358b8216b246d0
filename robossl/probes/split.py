"""Split frames into reference frames (for fits) and evaluated frames; no cluster (such as an episode) is in both."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from robossl.errors import InputError
from robossl.probes.frames import ProbeFrames, Split
from robossl.probes.profile import Thresholds
from robossl.probes.retrieval import GALLERY

_USUAL = Thresholds()
_NUM_SAMPLED = 32  # number of frames that are compared, to detect that all frames are equal


def split_frames(
    frames: ProbeFrames,
    *,
    n_reference: int = 2000,
    n_evaluation: int = 500,
    thresholds: Thresholds = _USUAL,
    seed: int = 0,
) -> Split:
    """Assign each cluster (such as an episode) at random to one of two sides: reference (for fits) or evaluation.

    Then draw the frames of each side evenly from its clusters. If a side has fewer frames than wanted, take all its
    frames.

    About n_evaluation / (n_reference + n_evaluation) of all frames are in evaluation clusters. If these are too few for
    the verdict SAFE without labels, more clusters become evaluation clusters, up to half of all.

    Raises:
        InputError: a side would have no frame, there are fewer than two clusters, or all frames are equal.
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
    share, least_frames = n_evaluation / (n_reference + n_evaluation), min(n_evaluation, GALLERY)
    total = np.cumsum(counts[order])
    by_share, by_frames = (int(np.searchsorted(total, wanted)) + 1 for wanted in (share * total[-1], least_frames))
    enough = min(max(by_frames, thresholds.least_clusters(has_label=False)), len(names) // 2)
    num_judged = min(max(by_share, int(enough)), len(names) - 1)
    judged = np.isin(frames.clusters, names[order[:num_judged]])
    return Split(
        reference=_evenly(np.flatnonzero(~judged), frames.clusters, n_reference, rng),
        evaluation=_evenly(np.flatnonzero(judged), frames.clusters, n_evaluation, rng),
    )


def _evenly(
    positions: Int[ndarray, " n"], clusters: Int[ndarray, " m"], count: int, rng: np.random.Generator
) -> Int[ndarray, " k"]:
    """Choose `count` random positions; return them sorted.

    Take one position of each cluster (such as an episode) before a second position of any cluster.
    """
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
