"""The words `none` and `null`, in upper or lower case. Both mean None in YAML and on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

PATTERN = r"(?i:none|null)"  # regular expression that matches both words


def is_none(text: str) -> bool:
    """Return whether a word means None.

    >>> [is_none(text) for text in ("none", "Null", "NONE", "nil", "")]
    [True, True, True, False, False]
    """
    return text.lower() in ("none", "null")


def registry() -> ConstructorRegistry:
    """Return rules by which tyro reads `none` and `null` as None.

    If a parameter is a `Literal` with the choice "none", both words mean this choice.
    """
    from tyro.constructors import ConstructorRegistry

    rules = ConstructorRegistry()
    rules.primitive_rule(_optional)
    rules.primitive_rule(_choice)
    return rules


def _optional(about: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    from tyro.constructors import PrimitiveConstructorSpec

    def read(words: list[str]) -> None:
        if not is_none(words[0]):
            raise ValueError(f"must be none, got {words[0]!r}")

    if about.type is not type(None):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="none",
        instance_from_str=read,
        is_instance=lambda value: value is None,
        str_from_instance=lambda value: ["none"],
    )


def _choice(about: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    from tyro.constructors import PrimitiveConstructorSpec

    choices = get_args(about.type)
    if get_origin(about.type) is not Literal or "none" not in choices:
        return None

    def read(words: list[str]) -> str:
        word = "none" if is_none(words[0]) else words[0]
        if word not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, got {word!r}")
        return word

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(choices)}}}",
        instance_from_str=read,
        is_instance=lambda value: value in choices,
        str_from_instance=lambda value: [value],
    )
