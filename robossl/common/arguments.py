"""Run the function call that a command line describes, or write a function call as a command line."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from robossl.common.none_word import registry


def call(function: Callable[..., Any], argv: list[str], *, prog: str) -> int:
    """Call a typed function with the arguments of a command line and return the exit code.

    The function's positional parameters are positional arguments; its keyword-only parameters are options. If the
    function returns text, print it. If it returns an integer, this is the exit code; otherwise the exit code is 0.
    """
    import tyro

    result = tyro.cli(_positional(function), args=argv, prog=prog, registry=registry())
    if isinstance(result, str):
        print(result)
    return result if isinstance(result, int) else 0


def spelled(function: Callable[..., Any], arguments: Mapping[str, Any], *, prog: str) -> str:
    """Return the command line that calls a function with these arguments.

    Leave out options that have their default value, and arguments that the function does not take.

    >>> def serve(models: tuple[str, ...], *, port: int = 1, tls: bool = False, hz: tuple[float, ...] = ()): ...
    >>> spelled(serve, {"models": ("a", "b c"), "port": 1, "tls": True, "hz": (3.0, 30.0)}, prog="robossl serve")
    "robossl serve a 'b c' --tls --hz 3.0 30.0"
    """
    words = prog.split()
    for name, parameter in inspect.signature(function).parameters.items():
        value, option = arguments.get(name, parameter.default), f"--{name.replace('_', '-')}"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            words += _words(value)
        elif value == parameter.default:
            continue
        elif is_dataclass(value) and not isinstance(value, type):
            given = {key: each for key, each in asdict(value).items() if each != getattr(parameter.default, key)}
            for key, each in given.items():
                words += [f"{option}.{key.replace('_', '-')}", *_words(each)]
        elif isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        else:
            words += [option, *_words(value)]
    return shlex.join(words)


def _words(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(each) for pair in value.items() for each in pair]
    return [str(each) for each in value] if isinstance(value, tuple | list) else [str(value)]


def _positional(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its positional parameters made positional-only.

    This is needed because tyro makes an option of every other parameter.
    """
    wrapped: Any = functools.wraps(function)(lambda *args, **options: function(*args, **options))
    signature = inspect.signature(function)
    parameters = [
        each.replace(kind=each.POSITIONAL_ONLY) if each.kind is each.POSITIONAL_OR_KEYWORD else each
        for each in signature.parameters.values()
    ]
    # tyro keeps the line breaks of the docstring.
    # Join the lines about each argument, so that tyro wraps them to the width of the terminal.
    wrapped.__doc__ = re.sub(r"\n {8}(?=\S)", " ", inspect.cleandoc(function.__doc__ or ""))
    wrapped.__signature__ = signature.replace(parameters=parameters)
    wrapped.__annotations__ = {name: _parsed_type(hint) for name, hint in get_type_hints(function).items()}
    # If `__wrapped__` existed, tyro would read the annotations of the original function.
    del wrapped.__wrapped__
    return cast(Callable[..., Any], wrapped)


def _parsed_type(hint: Any) -> Any:
    """Return the type that tyro should use for a parameter with the annotation `hint`.

    It is `Path` for `StrPath`, and a tuple for a union that contains a sequence.
    """
    parts = list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    several = next((part for part in parts if get_origin(part) is Sequence), None)
    if several is not None:
        return tuple[_parsed_type(get_args(several)[0]), ...]  # type: ignore[misc]
    if os.PathLike[str] in parts:
        parts = [Path if part == os.PathLike[str] else part for part in parts if part is not str]
    return Union[tuple(parts)]  # noqa: UP007  `|` cannot join the types in a list
