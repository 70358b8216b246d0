"""Fit thresholds on half of the encoders, judge the other half, and count what each verdict has meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from robossl.errors import InputError
from robossl.policies.calibration.cells import ProbedCell
from robossl.policies.calibration.result import LOST_POINTS, JoinedCell, ThresholdFit, WordCount
from robossl.probes.evidence import Evidence
from robossl.probes.profile import Profile
from robossl.probes.result import Need, Word
from robossl.probes.verdict import judge_level

GRID = 100  # steps of a threshold between 0 and 1
DROPPED_SHARE = 0.05  # of the SAFE cells, whose mean drop may exceed 20 points when a bound is fitted


def fit_halves(
    cells: Sequence[ProbedCell], profile: Profile, *, seed: int = 0
) -> tuple[tuple[ThresholdFit, ...], tuple[JoinedCell, ...]]:
    """Fit thresholds on each half of the encoders; return both fits, and the cells judged by the other half's fit.

    Raises:
        InputError: there is only one encoder.
    """
    names = sorted({each.cell.encoder for each in cells})
    if len(names) < 2:
        raise InputError(f"only one encoder is on both sides, {names[0]}; thresholds need two or more, better ten")
    order = np.random.default_rng(seed).permutation(len(names))
    first = tuple(sorted(names[at] for at in order[: len(names) // 2]))
    second = tuple(name for name in names if name not in first)
    fits, words = [], {}
    for fitted_on, held_out in ((first, second), (second, first)):
        values, remarks = fit_thresholds([each for each in cells if each.cell.encoder in fitted_on], profile)
        fits.append(ThresholdFit(fitted_on, held_out, values, remarks))
        fitted = with_thresholds(profile, values)
        words.update({id(each): judge_again(each, fitted) for each in cells if each.cell.encoder in held_out})
    return tuple(fits), tuple(replace(each.cell, held_out_word=words[id(each)]) for each in cells)


def fit_thresholds(cells: Sequence[ProbedCell], profile: Profile) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the smallest bounds at which, and above which, few SAFE cells dropped, and remarks.

    Few means: none whose drop is surely above 20 points, and at most 5 % whose mean drop is. Fits `inv_retention`
    (`inv_nis_w` if the profile reads no label) on cells with need INV, and `equi_retention` on those with need EQUI.
    A bound is absent if no cell dropped by 20 points: then nothing limits it, and the profile's own stays.
    """
    bounds: dict[Need, str] = {
        "INV": "inv_retention" if profile.labels else "inv_nis_w",
        "EQUI": "equi_retention",
    }
    values, remarks = {}, []
    today = asdict(profile.thresholds)
    for need, bound in bounds.items():
        of_need = [each for each in cells if _need(each, profile) == need and each.cell.outcome != "too low"]
        dropped = [each.cell.drop > LOST_POINTS for each in of_need]
        if not any(dropped):
            if of_need:
                remarks.append(f"{bound} stays at {today[bound]:g}: none of {len(of_need)} cells dropped by 20 points")
            continue
        leaves = [_least_bound(each, profile, bound) for each in of_need]  # from there on the cell is not SAFE
        lost = [each.cell.outcome == "lost" for each in of_need]
        values[bound] = _smallest_bound(np.array(leaves), np.array(dropped), np.array(lost))
        left = sum(is_lost and at > values[bound] for at, is_lost in zip(leaves, lost, strict=True))
        if left:
            remarks.append(f"{bound}: {left} lost cells are SAFE at any bound up to 1")
    return values, tuple(remarks)


def _smallest_bound(leaves: Float[ndarray, " n"], dropped: Bool[ndarray, " n"], lost: Bool[ndarray, " n"]) -> float:
    """Return the smallest bound of the grid at which, and above which, few SAFE cells dropped; 1 if there is none."""
    best = 1.0
    for bound in np.arange(GRID, -1, -1) / GRID:
        safe = leaves > bound
        if lost[safe].any() or dropped[safe].sum() > DROPPED_SHARE * safe.sum():
            break
        best = float(bound)
    return best


def with_thresholds(profile: Profile, values: Mapping[str, float]) -> Profile:
    """Return the profile with other thresholds; the bound of RISKY never exceeds that of SAFE."""
    limits = replace(profile.thresholds, **values)  # type: ignore[arg-type]
    risky = min(limits.inv_nis_w, limits.inv_nis_w_risky)
    return replace(profile, thresholds=replace(limits, inv_nis_w_risky=risky))


def judge_again(each: ProbedCell, profile: Profile) -> Word | None:
    """Return the verdict on a cell with the thresholds of a profile."""
    verdict = judge_level(Evidence(each.readings, each.references, profile, each.cell.factor, each.cell.level))
    return verdict.word if verdict else None


def count_words(cells: Iterable[JoinedCell]) -> tuple[WordCount, ...]:
    """Return how many cells of each word were kept, lost or open: with the profile's and with fitted thresholds."""
    judged = [cell for cell in cells if cell.outcome != "too low"]
    found: list[WordCount] = []
    kinds: tuple[Literal["today", "fitted"], ...] = ("today", "fitted")
    for kind in kinds:
        for word in get_args(Word):
            of_word = [c for c in judged if (c.word if kind == "today" else c.held_out_word) == word]
            outcomes = [c.outcome for c in of_word]
            if of_word:
                kept, lost, unsure = (outcomes.count(each) for each in ("kept", "lost", "open"))
                found.append(WordCount(kind, word, kept, lost, unsure, float(np.mean([c.drop for c in of_word]))))
    return tuple(found)


def _need(each: ProbedCell, profile: Profile) -> Need:
    asked = profile.factors.get(each.cell.factor)
    return asked.needs[each.cell.level - 1] if asked else "-"


def _least_bound(each: ProbedCell, profile: Profile, bound: str) -> float:
    """Return the smallest bound of the grid at which a cell is not SAFE; above 1 if there is none."""
    low, high = 0, GRID + 1
    while low < high:
        middle = (low + high) // 2
        if judge_again(each, with_thresholds(profile, {bound: middle / GRID})) == "SAFE":
            low = middle + 1
        else:
            high = middle
    return low / GRID
