"""Check the health of features: whether they have collapsed, and whether half precision harms them.

Features are collapsed if at least one of these conditions holds. The encoder's verdict is then UNUSABLE.
- Some features are not finite.
- The spread of the features is below a millionth of the length of their mean.
- After centring, the features use fewer than two directions (RankMe, arXiv:2210.02885). Centring matters, because a
  large mean would pull this number to 1.
- With noise of one grey level, fewer than 90 % of the frames retrieve their own clean frame.

Features are precision-fragile if half precision moves them by more than 5 % of their spread.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from robossl.measure.figures import Draws
from robossl.probes.invariance import Space, invariance, unit
from robossl.probes.result import Flag, ProbeHealth
from robossl.probes.retrieval import retrieval

MIN_REL_STD = 1e-6
MIN_RANK = 2.0
MIN_FRAMES = 20  # minimum number of frames to judge the features by their spread or rank
MIN_FLOOR_R1 = 0.9
MAX_FP16_ERROR = 0.05
SPECTRUM = 64  # maximum number of singular values in the report
# `alpha` is fitted to the eigenvalues 11 to 100, because Stringer et al. (2019) start at the eleventh.
FIRST, LAST = 10, 100
MAX_PAIRED = 1000  # maximum number of frames for the uniformity, which needs the distances of all pairs


def health(
    reference: Float[ndarray, "r d"],
    clean: Float[ndarray, "n d"],
    noisy: Float[ndarray, "n d"],
    space: Space,
    draws: Draws,
    gallery: Int[ndarray, " g"],
) -> ProbeHealth:
    """Measure the health of the reference frames' features; also measure how far weak noise moves features.

    Args:
        reference: Features of the reference frames.
        clean: Features of the evaluated frames.
        noisy: Features of the evaluated frames with noise of one grey level.
        space: Mean and whitening of the features of the reference frames.
        draws: Bootstrap resamples of the clusters (such as episodes) of the evaluated frames.
        gallery: Indices of the evaluated frames that retrieval searches.
    """
    if not all(np.isfinite(each).all() for each in (reference, clean, noisy)):
        return ProbeHealth(None, None, None, None, None, None, None, (), None, None, ("collapsed",))
    x = reference.astype(np.float64)
    centred = x - x.mean(axis=0)
    singular = _singular(centred, scale=float(np.linalg.norm(x)))
    spread, length = float(np.square(centred).sum() / len(x)), float(np.linalg.norm(x.mean(axis=0)))
    rel_std = float(np.sqrt(spread) / length) if length else float(np.sqrt(spread) > 0)
    fp16 = None if rel_std < MIN_REL_STD else _fp16_error(x, spread)
    rank = effective_rank(singular)
    nis_w = invariance(clean, noisy, space, draws)["nis_w"].value
    r1 = retrieval(clean, noisy, space, draws, gallery)["r1"].value
    return ProbeHealth(
        rankme=effective_rank(_singular(x, scale=float(np.linalg.norm(x)))),
        rankme_centred=rank,
        rel_std=rel_std,
        fp16_error=fp16,
        anisotropy=anisotropy(x),
        uniformity=uniformity(x[:MAX_PAIRED]),
        alpha=alpha(np.square(singular)),
        spectrum=tuple(float(s) for s in singular[:SPECTRUM] / max(singular.sum(), np.finfo(float).tiny)),
        floor_nis_w=nis_w,
        floor_r1=r1,
        flags=_flags(rel_std, rank, r1, fp16, num_frames=len(x)),
    )


def _flags(rel_std: float, rank: float, r1: float | None, fp16: float | None, *, num_frames: int) -> tuple[Flag, ...]:
    flat = num_frames >= MIN_FRAMES and (rel_std < MIN_REL_STD or rank < MIN_RANK)
    collapsed = flat or (r1 is not None and r1 < MIN_FLOOR_R1)
    fragile = fp16 is not None and fp16 > MAX_FP16_ERROR
    return (*(("collapsed",) if collapsed else ()), *(("precision-fragile",) if fragile else ()))


def effective_rank(singular: Float[ndarray, " k"]) -> float:
    """Return the effective number of directions: exp of the entropy of the singular values."""
    used = singular[singular > 0]
    if not len(used):
        return 1.0
    share = used / used.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def anisotropy(x: Float[ndarray, "n d"]) -> float | None:
    """Return the mean cosine similarity between the features of different frames; None for fewer than two frames.

    The result is near 1 if all features lie in a narrow cone.
    """
    if len(x) < 2:
        return None
    total = unit(x).sum(axis=0)
    own = np.square(unit(x)).sum()
    return float((total @ total - own) / (len(x) * (len(x) - 1)))


def uniformity(x: Float[ndarray, "n d"]) -> float | None:
    """Return the log of the mean of exp(-2 |u - v|^2) over all pairs of normalised features u, v (arXiv:2005.10242).

    Collapsed features give 0, and evenly spread features give about -4. Return None for fewer than two frames.
    """
    from scipy.spatial.distance import pdist

    if len(x) < 2:
        return None
    return float(np.log(np.exp(-2 * pdist(unit(x), "sqeuclidean")).mean()))


def alpha(eigenvalues: Float[ndarray, " k"]) -> float | None:
    """Fit i^-alpha to the i-th eigenvalue by least squares of logarithms (arXiv:2202.05808); return alpha.

    Return None for fewer than two eigenvalues above 0.
    """
    used = eigenvalues[eigenvalues > 0][:LAST]
    start = FIRST if len(used) >= 2 * FIRST else 0
    if len(used) - start < 2:
        return None
    index = np.arange(start, len(used)) + 1
    return float(-np.polyfit(np.log(index), np.log(used[start:]), 1)[0])


def _singular(x: Float[ndarray, "n d"], *, scale: float) -> Float[ndarray, " k"]:
    """Return the singular values of `x`, largest first. Values within the rounding error become zero."""
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    values = np.linalg.eigvalsh(gram)[::-1]
    squared_rounding = np.finfo(np.float64).eps * max(float(values[0]), np.finfo(np.float64).eps * scale**2)
    return np.sqrt(np.where(values > squared_rounding, values, 0))


def _fp16_error(x: Float[ndarray, "n d"], spread: float) -> float:
    """Return the root mean square error of features in half precision, relative to their spread."""
    largest = float(np.finfo(np.float16).max)
    error = np.clip(x, -largest, largest).astype(np.float16).astype(np.float64) - x
    return float(np.sqrt(np.square(error).sum() / len(x) / spread))
