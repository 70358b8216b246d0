"""Check the fields of a factor and the views (transformed frames) that it renders, because a plugin may be wrong."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from robossl.common.plugins import type_name
from robossl.errors import InputError
from robossl.probes.factors.factor import Base, Factor, Scale
from robossl.probes.result import Family

NUM_LEVELS = 5  # number of levels of a factor that has strengths; a factor that has kinds may have fewer
CLEAN_ERROR = 1.5  # largest mean difference between a view at the clean strength and the clean frame, in grey levels


def why_wrong(factor: Factor) -> str:
    """Return what is wrong with the fields of a factor, such as "has family 'light'"; "" if nothing is wrong."""
    for name, choices in {"family": Family, "base": Base, "scale": Scale}.items():
        value = getattr(factor, name)
        if value not in get_args(choices):
            return f"has {name} {value!r}; choose from {', '.join(get_args(choices))}"
    if not callable(factor.apply):
        return "has no function apply(frames, at, values)"
    return _why_wrong_sides(factor)


def _why_wrong_sides(factor: Factor) -> str:
    sides = factor.sides
    is_rows = isinstance(sides, tuple | list) and all(isinstance(side, tuple | list) for side in sides)
    if not is_rows or len(sides) not in (1, 2):
        return f"has sides {sides!r}; they must be one or two rows of strengths, such as ((1.0, 2.0, 3.0, 4.0, 5.0),)"
    numbers = [factor.clean, *(strength for side in sides for strength in side)]
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        return f"has clean {factor.clean!r} and sides {sides!r}; strengths must be finite numbers"
    if factor.scale != "linear" and min(numbers) <= 0:
        return f"has the scale {factor.scale} and the strength {min(numbers)}; strengths on this scale must be above 0"
    wanted = len(factor.classes) - 1 if factor.classes else NUM_LEVELS
    for side in sides:
        if len(side) != wanted:
            return f"has {len(side)} strengths on a side, {side!r}; it must have {wanted}, one for each level"
        steps = np.diff([factor.clean, *side])
        if not ((steps > 0).all() or (steps < 0).all()):
            return f"has the strengths {side!r} with clean {factor.clean}; they must lead away from it, mild to severe"
    return ""


def check_views(views: object, factor: Factor, shape: tuple[int, ...]) -> UInt8[ndarray, "b h w 3"]:
    """Check that a factor rendered a uint8 array of this shape; return the array.

    Raises:
        InputError: the factor rendered something else.
    """
    if not isinstance(views, np.ndarray) or views.dtype != np.uint8 or views.shape != shape:
        got = f"{views.shape} {views.dtype}" if isinstance(views, np.ndarray) else type_name(views)
        raise InputError(f"apply of the factor {factor.name} returned {got}; it must return an array {shape} uint8")
    return views


def check_clean(views: UInt8[ndarray, "b h w 3"], factor: Factor, clean: UInt8[ndarray, "b h w 3"]) -> None:
    """Check that a factor changes nothing at its clean strength. The probe relies on this.

    Raises:
        InputError: the views at the clean strength differ from the clean views.
    """
    off = float(np.abs(views.astype(np.int16) - clean).mean())
    if off > CLEAN_ERROR:
        raise InputError(
            f"apply of the factor {factor.name} changes frames by {off:.1f} grey levels at its clean strength "
            f"{factor.clean:g}; this strength must leave them as they are"
        )
