"""Scores of rows: success with its Wilson interval, and paired differences to the controls.

All policies are rolled out in the same scenes, so a difference is paired: it is taken within a scene. Its interval
resamples scenes; each resample also draws one seed (a policy with its demonstrations), as `measure/bootstrap.py` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from robossl.measure.bootstrap import Interval, draw_counts, percentile_interval
from robossl.measure.proportions import wilson_interval
from robossl.policies.result import ConditionScore, PairedDifference, TransferRow
from robossl.policies.simulator import Rollout

RESAMPLES = 10_000


def score_condition(factor: str, strength: int, by_seed: Sequence[Sequence[Rollout]]) -> ConditionScore:
    """Return the score of one row's rollouts under one condition; `by_seed` holds those of each seed's policy."""
    every = [each for rollouts in by_seed for each in rollouts]
    successes = sum(each.success for each in every)
    low, high = wilson_interval(successes, len(every))
    return ConditionScore(
        factor=factor,
        strength=strength,
        trials=len(every),
        successes=successes,
        success=successes / len(every),
        low=low,
        high=high,
        final_success=sum(each.final_success for each in every) / len(every),
        mean_return=math.fsum(each.total_reward for each in every) / len(every),
        mean_steps=sum(each.num_steps for each in every) / len(every),
        by_seed=tuple(tuple(each.success for each in rollouts) for rollouts in by_seed),
    )


def compare_rows(encoder: Sequence[ConditionScore], controls: Sequence[TransferRow]) -> tuple[PairedDifference, ...]:
    """Return an encoder's difference to each control under each condition."""
    found = []
    for control in controls:
        for ours, theirs in zip(encoder, control.scores, strict=True):
            paired = np.array(ours.by_seed, float) - np.array(theirs.by_seed, float)
            value, low, high = paired_interval(paired)
            found.append(PairedDifference(control.name, ours.factor, ours.strength, value, low, high))
    return tuple(found)


def paired_interval(differences: Float[ndarray, "seeds scenes"]) -> Interval:
    """Return the mean difference and its 95 % interval over scenes and seeds, from a bootstrap with a fixed seed."""
    num_seeds, num_scenes = differences.shape
    generator = np.random.default_rng(0)
    counts = draw_counts(np.zeros(num_scenes, int), num_resamples=RESAMPLES, generator=generator, fewer=1)
    resampled = counts @ differences.T / counts.sum(1, keepdims=True)
    seeds = generator.integers(num_seeds, size=RESAMPLES)
    return percentile_interval(float(differences.mean()), resampled, seeds)
