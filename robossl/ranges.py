"""Checks of the numbers of a configuration; nan is always refused, None never."""

from __future__ import annotations

import math

from robossl.errors import InputError


def check_range(low: float, high: float = math.inf, /, **numbers: float | None) -> None:
    """Refuse numbers outside of low to high; each is passed by its name.

    Raises:
        InputError: names the first such number.
    """
    for name, number in numbers.items():
        if number is not None and not low <= number <= high:
            allowed = f"be {low} or more" if high == math.inf else f"lie in {low} to {high}"
            raise InputError(f"{name} must {allowed}, got {number}")


def check_positive(**numbers: float | None) -> None:
    """Refuse numbers that are infinite, 0 or less; each is passed by its name.

    Raises:
        InputError: names the first such number.
    """
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name} must be a positive number, got {number}")


def check_limits(high: float = math.inf, /, **limits: tuple[float, float]) -> None:
    """Refuse pairs that are not 0 < least <= largest <= high; each is passed by its name.

    Raises:
        InputError: names the first such pair.
    """
    for name, (least, largest) in limits.items():
        if not 0 < least <= largest <= high or largest == math.inf:
            kind = "positive numbers" if high == math.inf else f"numbers above 0 and up to {high}"
            raise InputError(f"{name} must be two {kind}, the lesser first, got {least} {largest}")
