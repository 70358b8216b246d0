"""Nuisances of rollouts: factors of the environment, and photometric factors of the probes, which change the pictures.

The environment's own factor is used if both have one of a name. A factor with two sides, such as darker and brighter,
has one side for each scene, in all steps and for all policies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.policies.simulator import Act, RolloutView, Simulator
from robossl.probes.factors import FACTORS

if TYPE_CHECKING:
    from robossl.probes.factors.factor import Factor


def check_nuisances(simulator: Simulator, env: str, factors: Sequence[str], strengths: Sequence[int]) -> None:
    """Check factors and strengths.

    Raises:
        InputError: a factor is unknown, a strength is out of range, or one is named twice.
    """
    for name in factors:
        if name not in simulator.factors and not _is_photometric(name):
            others = (each for each in FACTORS.usable() if each not in simulator.factors and _is_photometric(each))
            raise InputError(suggest_name(f"factor of {env}", name, [*simulator.factors, *others]))
    for strength in strengths if factors else ():
        if not 1 <= strength <= simulator.largest_strength:
            raise InputError(f"--strengths must be 1 to {simulator.largest_strength}, got {strength}")
    for option, values in (("factors", factors), ("strengths", strengths)):
        if len(set(values)) < len(values):
            raise InputError(f"--{option} names one twice, got {' '.join(map(str, values))}; name each once")


def add_nuisance(act: Act, simulator: Simulator, factor: str, strength: int) -> tuple[Act, dict[str, int]]:
    """Return the policy as it acts under a nuisance, and the strengths that the environment sets.

    For a factor of the environment the policy stays as it is; for one of the probes its frames are changed first.
    """
    if not strength:
        return act, {}
    if factor in simulator.factors:
        return act, {factor: strength}
    change = cast("Factor", FACTORS.resolve(factor))

    def act_on_changed(view: RolloutView) -> Float[ndarray, "n a"]:
        rows = np.arange(len(view.frames))
        values = change.draw(strength, view.scenes, seed=0, draw="level")
        frames: Any = _Pictures(view.frames)
        return act(replace(view, frames=change.apply(frames, rows, values)))

    return act_on_changed, {}


class _Pictures:
    """The frames of one step, as far as a photometric factor needs a source of frames."""

    def __init__(self, frames: UInt8[ndarray, "n h w 3"]) -> None:
        self._frames = frames

    def clean(self, at: Int[ndarray, " b"]) -> UInt8[ndarray, "b h w 3"]:
        found: UInt8[ndarray, "b h w 3"] = self._frames[at]
        return found


def _is_photometric(name: str) -> bool:
    if name not in FACTORS:
        return False
    factor = FACTORS.resolve(name)
    return bool(factor.family == "photometric" and factor.base == "plain" and factor.num_levels == 5)
