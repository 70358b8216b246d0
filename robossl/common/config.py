"""Read YAML into frozen dataclasses, refuse unknown keys and wrong types, and write YAML.

A configuration is a tree of frozen dataclasses whose fields are bool, int, float, str, Path, Literal, tuple,
dict[str, x] or unions of these. If the class of a field's value is chosen by name, the field's metadata holds the
`Registry` of the names:

    method: MethodConfig = field(metadata={"choices": METHODS})  # in YAML: `method: {name: simsiam, lr: 0.1}`
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from robossl.common.overrides import override as override
from robossl.common.yaml_reader import Dumper, Reader, parse
from robossl.errors import InputError, reason

T = TypeVar("T")
_ABSENT = "(absent)"


def load(path: Path, schema: type[T], *, is_saved: bool = False) -> T:
    """Read a YAML file into a configuration dataclass.

    Args:
        path: The file.
        schema: The dataclass to build.
        is_saved: True if a run wrote the file, perhaps with an earlier version of this package. If the file lacks a
            key whose field has `metadata={"before": value}`, the key then takes this value. So the run continues as
            it began.

    Raises:
        InputError: the file cannot be read; a key is unknown, missing or repeated; a value has the wrong type; or a
            dataclass refuses its values with ValueError. The message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the configuration {path}: {reason}; pass a YAML file") from error
    config: T = Reader(str(path), is_saved=is_saved).build(parse(text, str(path)), schema, "")
    return config


def read_mapping(path: Path) -> dict[str, Any]:
    """Return a run's saved configuration as plain values; do not check keys and values.

    Any version of this package may have written the file.

    Raises:
        InputError: the file is not a YAML mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as yaml ({reason(error)}); was it edited?") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration; was it edited?")
    return content


def from_mapping(mapping: Mapping[str, object], schema: type[T], *, source: str | Path = "") -> T:
    """Build a configuration from plain values, as strictly as from YAML.

    Args:
        mapping: Nested dicts, lists and scalars, such as the content of a TOML or JSON file.
        schema: The dataclass to build.
        source: The file that the values come from, for messages; "" if they come from no file.

    Raises:
        InputError: a key or value is refused for a reason that `load` gives; the message names no line.
    """
    text = yaml.dump(_plain(mapping), Dumper=Dumper, sort_keys=False)
    config: T = Reader(str(source), has_lines=False).build(parse(text, str(source)), schema, "")
    return config


def with_changes(config: T, changes: Mapping[str, object]) -> T:
    """Return a copy of a configuration with new values, given by dotted keys: `{"train.steps": 100, "knn": None}`.

    A value that is a mapping replaces a whole part of the configuration. If a part is off (None), a change of one of
    its keys switches the part on.

    Raises:
        InputError: a key is unknown or a value is wrong.
    """
    plain = as_plain(config)
    for key, value in changes.items():
        *parents, last = key.split(".")
        whole = [name for name in _leaves(plain) if name.endswith(f".{key}")]
        if key.partition(".")[0] not in plain and len(whole) == 1:
            raise InputError(f"unknown key {key!r}; did you mean {whole[0]!r}?")
        part = plain
        for name in parents:
            if not isinstance(part.get(name), dict):
                part[name] = {}
            part = part[name]
        part[last] = value
    return from_mapping(plain, type(config)) if changes else config


def as_plain(config: object) -> dict[str, Any]:
    """Return a configuration as dicts, lists and scalars of JSON; the key `name` says which class was chosen."""
    plain: dict[str, Any] = _plain(config)
    return plain


def to_yaml(config: object) -> str:
    """Return all fields of a configuration, with defaults, as YAML. Loading it gives an equal configuration."""
    text: str = yaml.dump(_plain(config), Dumper=Dumper, sort_keys=False, default_flow_style=None, width=100)
    return text


def config_hash(config: object) -> str:
    """Return the sha256 of a configuration in hex. The order of keys does not change it, and 1.0 counts as 1."""
    canonical = json.dumps(_canonical(_plain(config)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def difference(before: object, after: object) -> list[str]:
    """List the differences between two configurations, one line per key: `train.steps: 100 -> 200`."""
    old, new = _leaves(_plain(before)), _leaves(_plain(after))
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in [*old, *new]}
    return [f"{key}: {_shown(was)} -> {_shown(now)}" for key, (was, now) in pairs.items() if was != now]


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {f.name: _named(f, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _named(field: dataclasses.Field[Any], value: Any) -> Any:
    if "choices" not in field.metadata:
        return _plain(value)
    return {"name": field.metadata["choices"].name_of(type(value)), **_plain(value)}


def _canonical(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {key: _canonical(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_canonical(value) for value in plain]
    return int(plain) if isinstance(plain, float) and plain.is_integer() else plain


def _leaves(plain: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(plain, dict) or not plain:
        return {at: plain}
    return {
        key: leaf
        for name, value in plain.items()
        for key, leaf in _leaves(value, f"{at}.{name}" if at else name).items()
    }


def _shown(plain: Any) -> str:
    return _ABSENT if plain == _ABSENT else json.dumps(plain)
