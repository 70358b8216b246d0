"""What to say when a name is not known: what was got, the nearest one, all that are allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a name that is not among the allowed ones.

    >>> unknown("method", "simsaim", ["simclr", "simsiam"])
    "unknown method 'simsaim'; did you mean 'simsiam'? choose from simclr, simsiam"
    """
    names = list(allowed)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {name!r}; {hint}choose from {', '.join(names) or '(nothing)'}"
