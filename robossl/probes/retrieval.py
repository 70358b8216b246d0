"""Measure whether a view (transformed frame) still finds its own clean frame: R@1 and mean reciprocal rank.

Each view is a query that searches a gallery of 200 clean frames. R@1 depends on the size of the gallery, so the size is
fixed. The gallery's frames are spread over the clusters (such as episodes). With fewer frames in the gallery the search
is easier, so R@1 does not suffice for the verdict SAFE. If another frame is as similar to a view as the view's
own frame, the other frame ranks first. Otherwise a constant encoder would be perfect.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import Draws, Figure, MetricParts, missing
from robossl.probes.invariance import TIE, Space, unit, unmeasurable

METRICS = ("r1", "mrr")
GALLERY = 200


def spread_gallery(clusters: Int[ndarray, " n"], *, size: int = GALLERY, seed: int = 0) -> Int[ndarray, " g"]:
    """Choose up to `size` random frames; return their indices.

    Take one frame of each cluster (such as an episode) before a second frame of any cluster.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(clusters))
    turn = np.zeros(len(clusters), dtype=np.int64)
    seen: dict[int, int] = {}
    for i in order:
        cluster = int(clusters[i])
        turn[i] = seen.get(cluster, 0)
        seen[cluster] = turn[i] + 1
    return np.sort(order[np.argsort(turn[order], kind="stable")][:size])


def retrieval(
    clean: Float[ndarray, "n d"],
    moved: Float[ndarray, "n d"],
    space: Space,
    draws: Draws,
    gallery: Int[ndarray, " g"],
) -> dict[str, Figure]:
    """Return R@1 and mean reciprocal rank; clean frames are ranked by cosine similarity of centred features."""
    reason = unmeasurable(clean, moved, space, draws)
    if reason:
        return dict.fromkeys(METRICS, missing(reason, n=len(clean), clusters=draws.weights.shape[1]))
    scores = retrieval_scores(clean, moved, space, gallery)
    return {name: draws.figure(each.parts, each.statistic, limits=each.limits) for name, each in scores.items()}


def retrieval_scores(
    clean: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], space: Space, gallery: Int[ndarray, " g"]
) -> dict[str, MetricParts]:
    """Return R@1 and the reciprocal rank of each frame. Call this only if `unmeasurable` returns None."""
    rank, _ = ranks(space.centre(clean), space.centre(moved), gallery)
    return {
        "r1": MetricParts((rank == 1).astype(np.float64), limits=(0, 1)),
        "mrr": MetricParts(1 / rank, limits=(0, 1)),
    }


def mistaken(
    clean: Float[ndarray, "n d"],
    moved: Float[ndarray, "n d"],
    space: Space,
    gallery: Int[ndarray, " g"],
    *,
    num: int = 8,
) -> tuple[tuple[int, int], ...]:
    """Return the `num` worst wrong retrievals, each as (index of the query, index of the frame that was found)."""
    if not (np.isfinite(clean).all() and np.isfinite(moved).all()):
        return ()
    rank, rival = ranks(space.centre(clean), space.centre(moved), gallery)
    worst = np.argsort(-rank, kind="stable")[:num]
    return tuple((int(i), int(rival[i])) for i in worst if rank[i] > 1)


def ranks(
    z: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], gallery: Int[ndarray, " g"]
) -> tuple[Int[ndarray, " n"], Int[ndarray, " n"]]:
    """Return for each transformed frame the rank of its clean frame, and the index of the most similar other frame."""
    views, others = unit(moved), unit(z)
    own = (views * others).sum(axis=1)
    likeness = views @ others[gallery].T
    is_own = np.arange(len(z))[:, None] == gallery[None]
    # If the clean frame of a view is not in the gallery, all frames of the gallery are rivals, one more than otherwise.
    # Ignore one of them, so that every view has the same number of rivals.
    is_own[~is_own.any(axis=1), -1] = True
    likeness = np.where(is_own, -np.inf, likeness)
    rank = 1 + (likeness >= own[:, None] - TIE).sum(axis=1)
    return rank, gallery[likeness.argmax(axis=1)]
