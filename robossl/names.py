"""The message for an unknown name: what was got, the nearest name and all that are allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggest_name(what: str, name: str, allowed: Iterable[str]) -> str:
    """Return the message for a name that is not allowed, with the nearest one that is.

    >>> suggest_name("method", "simsaim", ["simclr", "simsiam"])
    "unknown method 'simsaim'; did you mean 'simsiam'? choose from simclr, simsiam"
    """
    names = list(allowed)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {name!r}; {hint}choose from {', '.join(names) or '(nothing)'}"
