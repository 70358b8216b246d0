"""Arguments: from a command line to the typed function behind a command."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, cast


def call(function: Callable[..., Any], argv: list[str], *, prog: str) -> int:
    """Call a typed function with the arguments of a command line; returns the exit code.

    Its positional parameters are positional here too, keyword-only ones become options, text that it returns is
    printed, and a number that it returns is the exit code.
    """
    import tyro

    result = tyro.cli(_positional(function), args=argv, prog=prog)
    if isinstance(result, str):
        print(result)
    return result if isinstance(result, int) else 0


def _positional(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its positional parameters as positional only, which is what tyro makes positional."""
    wrapped: Any = functools.wraps(function)(lambda *args, **options: function(*args, **options))
    signature = inspect.signature(function)
    parameters = [
        each.replace(kind=each.POSITIONAL_ONLY) if each.kind is each.POSITIONAL_OR_KEYWORD else each
        for each in signature.parameters.values()
    ]
    wrapped.__signature__ = signature.replace(parameters=parameters)
    return cast(Callable[..., Any], wrapped)
