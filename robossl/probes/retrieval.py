"""Whether a view still finds its own frame: R@1 and mean reciprocal rank among 200 clean frames, ties losing.

R@1 depends on the size of the gallery, which is therefore fixed: every query competes against the same frames, spread
over the clusters. Among fewer frames it is easier, and no verdict SAFE rests on it. Ties lose, or a constant encoder
would be perfect.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.probes.bootstrap import Draws, Scores, missing
from robossl.probes.invariance import TIE, Space, unit, unmeasurable
from robossl.probes.result import Figure

METRICS = ("r1", "mrr")
GALLERY = 200


def spread_gallery(clusters: Int[ndarray, " n"], *, size: int = GALLERY, seed: int = 0) -> Int[ndarray, " g"]:
    """Positions of up to `size` frames, a frame of each cluster before a second of any."""
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
    """R@1 and mean reciprocal rank of one view, by centred cosine."""
    reason = unmeasurable(clean, moved, space, draws)
    if reason:
        return dict.fromkeys(METRICS, missing(reason, n=len(clean), clusters=draws.weights.shape[1]))
    scores = retrieval_scores(clean, moved, space, gallery)
    return {name: draws.figure(each.parts, each.statistic, limits=each.limits) for name, each in scores.items()}


def retrieval_scores(
    clean: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], space: Space, gallery: Int[ndarray, " g"]
) -> dict[str, Scores]:
    """The same frame by frame, to compare encoders; only where `unmeasurable` has nothing to say."""
    rank, _ = ranks(space.centre(clean), space.centre(moved), gallery)
    return {"r1": Scores((rank == 1).astype(np.float64), limits=(0, 1)), "mrr": Scores(1 / rank, limits=(0, 1))}


def mistaken(
    clean: Float[ndarray, "n d"],
    moved: Float[ndarray, "n d"],
    space: Space,
    gallery: Int[ndarray, " g"],
    *,
    num: int = 8,
) -> tuple[tuple[int, int], ...]:
    """Views that are most clearly taken for another frame: positions of the query and of what was found."""
    if not (np.isfinite(clean).all() and np.isfinite(moved).all()):
        return ()
    rank, rival = ranks(space.centre(clean), space.centre(moved), gallery)
    worst = np.argsort(-rank, kind="stable")[:num]
    return tuple((int(i), int(rival[i])) for i in worst if rank[i] > 1)


def ranks(
    z: Float[ndarray, "n d"], moved: Float[ndarray, "n d"], gallery: Int[ndarray, " g"]
) -> tuple[Int[ndarray, " n"], Int[ndarray, " n"]]:
    """Rank of each view's own frame among as many frames as the gallery has, and the best of the others."""
    views, others = unit(moved), unit(z)
    own = (views * others).sum(axis=1)
    likeness = views @ others[gallery].T
    is_own = np.arange(len(z))[:, None] == gallery[None]
    is_own[~is_own.any(axis=1), -1] = True  # whose frame is not in the gallery meets one rival fewer: as many as all
    likeness = np.where(is_own, -np.inf, likeness)
    rank = 1 + (likeness >= own[:, None] - TIE).sum(axis=1)
    return rank, gallery[likeness.argmax(axis=1)]
