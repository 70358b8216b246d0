"""The error message for an unknown name: the name itself, the nearest allowed name and all allowed names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names of settings in other libraries, and our names for the same settings.
_USUAL = {"learning_rate": "lr", "optimizer": "optim", "model": "encoder"}


def suggest_name(what: str, name: str, allowed: Iterable[str]) -> str:
    """Return the error message for a name that is not allowed; the message suggests the nearest allowed name.

    >>> suggest_name("method", "simsaim", ["simclr", "simsiam"])
    "unknown method 'simsaim'; did you mean 'simsiam'? choose from simclr, simsiam"
    """
    names = list(allowed)
    usual = _USUAL.get(name)
    starts = [each for each in names if name and each.startswith(name)]
    nearest = [usual] if usual in names else difflib.get_close_matches(name, names, n=1, cutoff=0.5) or starts
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {what} {name!r}; {hint}choose from {', '.join(names) or '(nothing)'}"
