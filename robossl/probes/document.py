"""Write and read a report as JSON with the schema `robossl.probe/1`.

The JSON has the fields of the report's dataclasses, with null for a missing number. This module does not use the
package's YAML reader, because that would take a minute for the megabytes of numbers in a report.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from robossl.common.atomic_io import write_text
from robossl.errors import InputError
from robossl.probes.profile import LEVELS
from robossl.probes.result import SCHEMA, Figure, Report

NOT_FINITE = "not a finite number"


def to_json(report: Report) -> str:
    """Return the text of a report's JSON file."""
    return json.dumps(plain(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(report: Report, path: Path) -> None:
    """Write a report in one step, so that a reader sees either the whole old file or the whole new file.

    Raises:
        ResourceError: the disk is full.
    """
    write_text(path, to_json(report))


def read_report(path: Path) -> Report:
    """Read a report from its file, or from the folder that holds report.json.

    Raises:
        InputError: the file is not a report, it has another schema version, or a field is missing, unknown or of a
            wrong type.
    """
    try:
        path = path / "report.json" if path.is_dir() else path
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise InputError(f"{path} is not a probe report ({why}); write one with robossl probe run --out") from error
    if schema != SCHEMA:
        raise InputError(f"{path} has schema {schema!r}, this version reads {SCHEMA!r}; probe the encoder again")
    try:
        report = cast(Report, build_record(Report, content, ""))
        for factor, needs in report.task.needs.items() if report.task else ():
            if len(needs) != LEVELS:
                _wrong(f"task.needs.{factor}", f"{LEVELS} needs", list(needs))
        return report
    except WrongFieldError as error:
        raise InputError(f"{path} is not a valid {SCHEMA} report: {error}; probe the encoder again") from None


def plain(value: Any) -> Any:
    """Return a report, or a part of it, as dicts, lists and scalars.

    A number that is not finite becomes None (null in JSON). If it is in a `Figure`, the figure gets a reason.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Figure):
        return _plain_figure(value)
    if dataclasses.is_dataclass(value):
        record: Any = type(value)
        hints = field_types(record)
        return {name: _plain_field(getattr(value, name), hint) for name, hint in hints.items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, bool | int | str | None):
        return value
    return value if math.isfinite(value) else None


def _plain_field(value: Any, hint: Any) -> Any:
    """Return a field as dicts, lists and scalars.

    A tuple with a number that is not finite becomes an empty list, or None if the field's type allows None.
    """
    is_row = isinstance(value, tuple) and bool(value) and not dataclasses.is_dataclass(value[0])
    if is_row and not all(math.isfinite(each) for each in np.ravel(value) if not isinstance(each, str)):
        return [] if get_origin(hint) is tuple else None
    return plain(value)


def _plain_figure(figure: Figure) -> dict[str, Any]:
    numbers = [plain(number) for number in (figure.value, figure.low, figure.high)]
    if numbers[0] is None:
        numbers = [None, None, None]
    reason = figure.reason or (NOT_FINITE if None in numbers else None)
    counts = {"n": int(figure.n), "clusters": int(figure.clusters)}
    return {**dict(zip(("value", "low", "high"), numbers, strict=True)), **counts, "reason": reason}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not JSON")


class WrongFieldError(Exception):
    """Raised for a field whose value does not match the field's type."""


@cache
def field_types(record: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields by name."""
    return get_type_hints(record)


def build_record(wanted: Any, content: Any, at: str) -> Any:
    """Make a dataclass from the content of a JSON object; `at` is the object's place in the whole, for messages.

    Raises:
        WrongFieldError: a field is missing, unknown or of a wrong type.
    """
    if not isinstance(content, dict):
        _wrong(at, "an object", content)
    hints = field_types(wanted)
    needed = {field.name for field in dataclasses.fields(wanted) if _is_needed(field)}
    for names, what in ((needed - content.keys(), "missing"), (content.keys() - hints.keys(), "not known")):
        if names:
            raise WrongFieldError(f"{_join(at, min(names))} is {what}")
    return wanted(**{name: _value(hints[name], item, _join(at, name)) for name, item in content.items()})


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING


def _value(wanted: Any, content: Any, at: str) -> Any:
    origin, inner = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return content
    if dataclasses.is_dataclass(wanted):
        return build_record(wanted, content, at)
    if origin is Literal:
        return content if content in inner else _wrong(at, " or ".join(map(repr, inner)), content)
    if origin in (types.UnionType, Union):
        return None if content is None else _value(inner[0], content, at)
    if origin is tuple:
        return _tuple(inner, content, at)
    if origin is not None:  # the type is a mapping; all other generic types are handled above
        items = content.items() if isinstance(content, dict) else _wrong(at, "an object", content)
        return {key: _value(inner[1], item, _join(at, key)) for key, item in items}
    return _scalar(wanted, content, at)


def _tuple(inner: tuple[Any, ...], content: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(content, list):
        _wrong(at, "a list", content)
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(content)
    if len(inner) != len(content):
        _wrong(at, f"a list of {len(inner)}", content)
    return tuple(_value(each, item, f"{at}[{i}]") for i, (each, item) in enumerate(zip(inner, content, strict=True)))


def _scalar(wanted: type, content: Any, at: str) -> Any:
    is_number = isinstance(content, int | float) and not isinstance(content, bool)
    if wanted is float and is_number:
        return float(content)
    if type(content) is not wanted:
        _wrong(at, {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[wanted], content)
    return content


def _wrong(at: str, wanted: str, content: Any) -> NoReturn:
    shown = json.dumps(content)
    raise WrongFieldError(f"{at or 'the whole'} must be {wanted}, got {shown[:60]}{'...' if len(shown) > 60 else ''}")


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name
