"""Change fields of a configuration from the command line; switch optional parts, such as online kNN, on and off."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass, replace
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

from robossl.common.none_word import is_none, registry
from robossl.errors import InputError

T = TypeVar("T")


def override(config: T, argv: Sequence[str], *, prog: str) -> T:
    """Change fields from the command line: `["--train.steps", "1000", "--method.view.size", "64", "--knn", "none"]`.

    Some fields, such as the method, have a class that the YAML file chose by name. They keep this class. The annotation
    of such a field must be a base class or a runtime-checkable protocol. For an unknown option, tyro prints the nearest
    options and exits with status 2.

    Raises:
        InputError: the arguments switch an optional part off and change it too, or set it to a value other than none.
    """
    import tyro

    words = list(argv)
    for name, kind in list(_optional_parts(config)):
        words, is_off = _take_none(words, name)
        changed = [word for word in words if _option(word).startswith(f"--{name}.")]
        if is_off and changed:
            raise InputError(
                f"--{name} none leaves nothing for {changed[0].partition('=')[0]} to set; give one of them"
            )
        if is_off:
            config = _with(config, name, None)
        elif changed and _get(config, name) is None:
            config = _with(config, name, _unset(kind))
    return tyro.cli(
        type(config), default=config, args=words, prog=prog, config=(tyro.conf.AvoidSubcommands,), registry=registry()
    )


def _optional_parts(config: Any, at: str = "") -> Iterator[tuple[str, type]]:
    """Yield the dotted name and the class of every optional part: a field whose type is a dataclass or None."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = f"{at}{field.name}", getattr(config, field.name)
        kinds = [kind for kind in get_args(hints[field.name]) if is_dataclass(kind)]
        if NoneType in get_args(hints[field.name]) and len(kinds) == 1:
            yield name, kinds[0]  # type: ignore[misc]
        if is_dataclass(value):
            yield from _optional_parts(value, f"{name}.")


def _take_none(words: list[str], name: str) -> tuple[list[str], bool]:
    """Remove `--NAME none` from the words of a command line.

    Return the remaining words, and whether `--NAME none` was among them.
    """
    kept: list[str] = []
    is_off, rest = False, iter(words)
    for word in rest:
        if _option(word) != f"--{name}":
            kept.append(word)
            continue
        value = word.partition("=")[2] if "=" in word else next(rest, "")
        if not is_none(value):
            raise InputError(
                f"--{name} takes none, which switches it off, got {value!r}; change it by --{name}.KEY VALUE"
            )
        is_off = True
    return kept, is_off


def _option(word: str) -> str:
    return word.partition("=")[0].replace("-", "_").replace("__", "--", 1) if word.startswith("--") else ""


def _get(config: Any, name: str) -> Any:
    for part in name.split("."):
        config = getattr(config, part)
    return config


def _with(config: Any, name: str, value: Any) -> Any:
    first, _, rest = name.partition(".")
    return replace(config, **{first: _with(getattr(config, first), rest, value) if rest else value})


def _unset(kind: type) -> Any:
    """Return an optional part of a configuration with its defaults.

    If a field has no default, tyro requires an option for it.
    """
    import tyro

    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    return kind(**dict.fromkeys(required, tyro.MISSING))
