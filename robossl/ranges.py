"""Ranges: what the numbers of a configuration may be; nan lies in none of them, None (where allowed) in all."""

from __future__ import annotations

import math

from robossl.errors import InputError


def check_range(low: float, high: float = math.inf, /, **numbers: float | None) -> None:
    """Refuse numbers, passed by name, outside of low to high.

    Raises:
        InputError: naming the first.
    """
    for name, number in numbers.items():
        if number is not None and not low <= number <= high:
            allowed = f"be {low} or more" if high == math.inf else f"lie in {low} to {high}"
            raise InputError(f"{name} must {allowed}, got {number}")


def check_positive(**numbers: float | None) -> None:
    """Refuse numbers, passed by name, that are not above 0 and finite.

    Raises:
        InputError: naming the first.
    """
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name} must be a positive number, got {number}")


def check_limits(high: float = math.inf, /, **limits: tuple[float, float]) -> None:
    """Refuse pairs, passed by name, that are not the least and the largest of something above 0 and up to high.

    Raises:
        InputError: naming the first.
    """
    for name, (least, largest) in limits.items():
        if not 0 < least <= largest <= high or largest == math.inf:
            kind = "positive numbers" if high == math.inf else f"numbers above 0 and up to {high}"
            raise InputError(f"{name} must be two {kind}, the lesser first, got {least} {largest}")
