"""Counts in messages: a number and its noun."""

from __future__ import annotations


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or the plural.

    >>> format_count(1, "episode"), format_count(2, "new frame"), format_count(0, "file")
    ('1 episode', '2 new frames', '0 files')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
