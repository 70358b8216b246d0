"""Check the numbers of a configuration. nan is always refused; None (not set) is never refused."""

from __future__ import annotations

import math

from robossl.errors import InputError


def check_range(low: float, high: float = math.inf, /, **numbers: float | None) -> None:
    """Refuse numbers less than `low` or greater than `high`; pass each number as a keyword argument with its name.

    Raises:
        InputError: a number is out of range; the message names the first such number.
    """
    for name, number in numbers.items():
        if number is not None and not low <= number <= high:
            allowed = f"be {low} or more" if high == math.inf else f"lie in {low} to {high}"
            raise InputError(f"{name} must {allowed}, got {number}")


def check_positive(**numbers: float | None) -> None:
    """Refuse numbers that are infinite, 0 or less; pass each number as a keyword argument with its name.

    Raises:
        InputError: a number is not positive and finite; the message names the first such number.
    """
    for name, number in numbers.items():
        if number is not None and not 0 < number < math.inf:
            raise InputError(f"{name} must be a positive number, got {number}")


def check_limits(high: float = math.inf, /, **limits: tuple[float, float]) -> None:
    """Refuse pairs (least, largest) unless 0 < least <= largest <= `high` and largest is finite.

    Pass each pair as a keyword argument with its name.

    Raises:
        InputError: a pair is refused; the message names the first such pair.
    """
    for name, (least, largest) in limits.items():
        if not 0 < least <= largest <= high or largest == math.inf:
            kind = "positive numbers" if high == math.inf else f"numbers above 0 and up to {high}"
            raise InputError(f"{name} must be two {kind}, the lesser first, got {least} {largest}")
