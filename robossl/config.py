"""YAML to frozen dataclasses, strictly, and back: this file owns the rules and no field.

A configuration is a tree of frozen dataclasses of bool, int, float, str, Path, Literal, tuple, dict[str, x]
and unions. A field whose class is picked by name says where to look it up:

    METHODS = {"simsiam": "robossl.methods.simsiam:SimSiamConfig"}
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

from robossl.errors import InputError, reason
from robossl.overrides import override as override
from robossl.yaml_nodes import Dumper, Reader, parse

T = TypeVar("T")
_ABSENT = "(absent)"


def load(path: Path, schema: type[T], *, is_saved: bool = False) -> T:
    """Read a YAML file into a configuration dataclass.

    Args:
        path: The file.
        schema: The dataclass.
        is_saved: A run wrote the file, perhaps by an earlier version. A field whose default would change what that run
            does says with `metadata={"before": value}` what held before the field existed.

    Raises:
        InputError: naming file and line; for an unreadable file, an unknown, missing or repeated key, a wrong
            type or value, and for whatever a dataclass itself refuses with ValueError.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"cannot read the configuration {path}: {reason}; pass a YAML file") from error
    return _build(text, schema, str(path), is_saved=is_saved)


def read_mapping(path: Path) -> dict[str, Any]:
    """A configuration as it was written, by a run of any version; nothing in it is checked.

    Raises:
        InputError: it is not a mapping in yaml.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read as yaml ({reason(error)}); was it edited?") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration; was it edited?")
    return content


def from_mapping(mapping: Mapping[str, object], schema: type[T]) -> T:
    """Build a configuration from plain values, as strictly as from YAML.

    Raises:
        InputError: as `load`, without file and line.
    """
    return _build(yaml.dump(_plain(mapping), Dumper=Dumper), schema, "")


def with_changes(config: T, changes: Mapping[str, object]) -> T:
    """Return a configuration with new values by dotted key: `{"train.steps": 100, "knn": None}`.

    A mapping as a value replaces a whole part; a key below a part that is off switches it on.

    Raises:
        InputError: a key is unknown or a value is wrong.
    """
    plain = as_plain(config)
    for key, value in changes.items():
        *parents, last = key.split(".")
        part = plain
        for name in parents:
            if not isinstance(part.get(name), dict):
                part[name] = {}
            part = part[name]
        part[last] = value
    return from_mapping(plain, type(config)) if changes else config


def as_plain(config: object) -> dict[str, Any]:
    """A configuration as nested dicts, lists and scalars, chosen classes under `name`; JSON can hold it."""
    plain: dict[str, Any] = _plain(config)
    return plain


def to_yaml(config: object) -> str:
    """Every field of a configuration, defaults included; loading the text gives an equal configuration."""
    text: str = yaml.dump(_plain(config), Dumper=Dumper, sort_keys=False, default_flow_style=None, width=100)
    return text


def config_hash(config: object) -> str:
    """Hex sha256 of a configuration as canonical JSON; the order of keys and 1 against 1.0 do not matter."""
    canonical = json.dumps(_canonical(_plain(config)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def difference(before: object, after: object) -> list[str]:
    """What changed between two configurations, one line a key: `train.steps: 100 -> 200`."""
    old, new = _leaves(_plain(before)), _leaves(_plain(after))
    pairs = {key: (old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in [*old, *new]}
    return [f"{key}: {_shown(was)} -> {_shown(now)}" for key, (was, now) in pairs.items() if was != now]


def _build(text: str, schema: type[T], source: str, *, is_saved: bool = False) -> T:
    config: T = Reader(source, is_saved).build(parse(text, source), schema, "")
    return config


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
    target = f"{type(value).__module__}:{type(value).__qualname__}"
    names = [name for name, known in field.metadata["choices"].items() if known == target]
    assert names, f"{target} is not in the table of {field.name}"
    return {"name": names[0], **_plain(value)}


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
