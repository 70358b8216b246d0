"""Turn YAML nodes into typed values, strictly. Messages name the file, line and key, the value and what is allowed.

Scalars follow YAML 1.2: `1e-3` is a number, `off` and `no` are text, and `010` is ten. The words `none` and `null` mean
None; but if a `Literal` has the choice "none", both words mean that choice.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from robossl.common.none_word import PATTERN, is_none
from robossl.common.plugins import Registry
from robossl.common.suggest import suggest_name
from robossl.errors import InputError

_Pairs = dict[str, tuple[yaml.Node, yaml.Node]]  # {key: (node of the key, node of the value)}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$")
_TAGS: dict[Any, set[str]] = {
    bool: {"bool"},
    int: {"int"},
    float: {"float", "int"},
    str: {"str"},
    Path: {"str"},
    NoneType: {"null"},
}
_SPELLED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    NoneType: "null",
}


class _Yaml12Loader(yaml.SafeLoader):
    """SafeLoader that reads scalars by the rules of YAML 1.2."""


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text if YAML 1.1 or 1.2 would read it as another type."""


_Yaml12Loader.yaml_implicit_resolvers = {}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?i:true|false)$"), "tTfF")
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), "-+0123456789")
for _dialect in (_Yaml12Loader, Dumper):
    _dialect.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, "-+.0123456789")
    _dialect.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(rf"({PATTERN}|~|)$"), ["n", "N", "~", ""])


def parse(text: str, source: str) -> yaml.Node:
    """Return the root node of a YAML text; an empty text gives an empty mapping.

    Raises:
        InputError: the text is not YAML or has a tag. Tags are refused because types come from the schema alone.
    """
    try:
        for event in yaml.parse(text, Loader=_Yaml12Loader):
            if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise InputError(f"{source}:{line}: tag {event.tag!r} is not allowed; leave it out")
        return yaml.compose(text, Loader=_Yaml12Loader) or yaml.MappingNode("tag:yaml.org,2002:map", [])
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{source}:{line}: this is not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{source}: this is not valid YAML: {error}") from error


@dataclass(frozen=True, slots=True)
class Reader:
    """Builds typed values from YAML nodes. The argument `at` of each method is the dotted key of the value.

    Raises:
        InputError: the node does not fit the type.
    """

    source: str  # the file that messages name; "" if there is none
    has_lines: bool = True  # whether messages name the line
    # Whether a run saved the file, perhaps with an older version of this package.
    # If such a file lacks a key, the key gets the value `before` in the field's metadata, which the older version used.
    is_saved: bool = False

    def build(self, node: yaml.Node, hint: Any, at: str, base: Any = None) -> Any:
        """Build a value of the type `hint`. If a mapping lacks keys, take them from `base`, the field's default."""
        origin = get_origin(hint)
        if is_dataclass(hint):
            return self._dataclass(node, self._pairs(node, hint, at), hint, at, base)
        if origin in (Union, UnionType):
            return self._union(node, hint, at)
        if origin is Literal:
            return self._literal(node, hint, at)
        if origin is tuple:
            return self._tuple(node, hint, at)
        if origin is dict:
            item, pairs = get_args(hint)[1], self._pairs(node, hint, at)
            return {key: self.build(value, item, f"{at}.{key}") for key, (_, value) in pairs.items()}
        return self._scalar(node, hint, at)

    def _dataclass(self, node: yaml.Node, pairs: _Pairs, cls: Any, at: str, base: Any = None) -> Any:
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        for key, (key_node, _) in pairs.items():
            if key not in fields:
                raise self._error(key_node, suggest_name(f"key in {at}" if at else "key", key, fields))
        hints, values = get_type_hints(cls), {}
        for name, field in fields.items():
            here = f"{at}.{name}" if at else name
            if name not in pairs:
                if base is None and field.default is MISSING and field.default_factory is MISSING:
                    raise self._error(node, f"{here} is missing and has no default; give {_spell(hints[name])}")
                if self.is_saved and "before" in field.metadata:
                    values[name] = field.metadata["before"]
            elif "choices" in field.metadata:
                values[name] = self._choice(pairs[name][1], field.metadata["choices"], here)
            else:
                values[name] = self.build(pairs[name][1], hints[name], here, _default(field, hints[name]))
        try:
            return cls(**values) if base is None else dataclasses.replace(base, **values)
        except ValueError as error:
            raise self._error(node, f"{at}: {error}" if at else str(error)) from error

    def _choice(self, node: yaml.Node, table: Registry, at: str) -> Any:
        pairs = self._pairs(node, dict[str, object], at)
        if "name" not in pairs:
            raise self._error(node, f"{at}.name is missing; choose from {', '.join(table)}")
        _, name = pairs.pop("name")
        if not isinstance(name, yaml.ScalarNode):
            raise self._error(name, f"{at}.name must be text, got {_got(name)}; choose from {', '.join(table)}")
        try:
            chosen = table.resolve(name.value)
        except InputError as error:
            raise self._error(name, str(error)) from error
        return self._dataclass(node, pairs, chosen, at)

    def _union(self, node: yaml.Node, hint: Any, at: str) -> Any:
        members = [member for member in get_args(hint) if member is not NoneType]
        if NoneType in get_args(hint) and _tag(node) == "null":
            return None
        if len(members) == 1:
            return self.build(node, members[0], at)
        for member in members:
            try:
                return self.build(node, member, at)
            except InputError:
                continue
        raise self._wrong(node, hint, at)

    def _literal(self, node: yaml.Node, hint: Any, at: str) -> Any:
        if "none" in get_args(hint) and _tag(node) == "null" and is_none(node.value):
            return "none"
        for value in get_args(hint):
            if _tag(node) in _TAGS[type(value)] and self.build(node, type(value), at) == value:
                return value
        raise self._wrong(node, hint, at)

    def _tuple(self, node: yaml.Node, hint: Any, at: str) -> Any:
        args = get_args(hint)
        if not isinstance(node, yaml.SequenceNode):
            raise self._wrong(node, hint, at)
        hints = [args[0]] * len(node.value) if args[1:] == (...,) else args
        if len(hints) != len(node.value):
            raise self._wrong(node, hint, at)
        return tuple(self.build(child, hints[i], f"{at}[{i}]") for i, child in enumerate(node.value))

    def _scalar(self, node: yaml.Node, hint: Any, at: str) -> Any:
        if not isinstance(node, yaml.ScalarNode) or _tag(node) not in _TAGS[hint]:
            raise self._wrong(node, hint, at)
        if hint is bool:
            return node.value.lower() == "true"
        if hint is float:
            return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))
        return None if hint is NoneType else hint(node.value)

    def _pairs(self, node: yaml.Node, hint: Any, at: str) -> _Pairs:
        if not isinstance(node, yaml.MappingNode):
            raise self._wrong(node, hint, at or "the configuration")
        pairs: _Pairs = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, f"a key must be text, got {_got(key)}")
            if key.value in pairs:
                raise self._error(key, f"key {key.value!r} is given twice{f' in {at}' if at else ''}; keep one")
            pairs[key.value] = (key, value)
        return pairs

    def _wrong(self, node: yaml.Node, hint: Any, at: str) -> InputError:
        quotes = "; put it in quotes" if hint in (str, Path) and isinstance(node, yaml.ScalarNode) else ""
        return self._error(node, f"{at} must be {_spell(hint)}, got {_got(node)}{quotes}")

    def _error(self, node: yaml.Node, message: str) -> InputError:
        line = f":{node.start_mark.line + 1}" if self.has_lines and node.start_mark else ""
        return InputError(f"{self.source}{line}: {message}" if self.source else message)


def why_unreadable(cls: type) -> str:
    """Return which field of a dataclass has a type that a configuration cannot hold; "" if all types are fine."""
    try:
        hints = get_type_hints(cls)
    except NameError as error:
        return f"has an annotation that cannot be resolved ({error}); import it outside of TYPE_CHECKING"
    names = [field.name for field in dataclasses.fields(cls) if field.init and not _is_readable(hints[field.name])]
    kinds = "bool, int, float, str, Path, Literal, tuple, dict[str, ...], frozen dataclasses and unions"
    return f"has a field `{names[0]}` of type {hints[names[0]]}; a configuration holds {kinds}" if names else ""


def _is_readable(hint: Any) -> bool:
    origin, args = get_origin(hint), get_args(hint)
    if origin is dict:
        return args[0] is str and _is_readable(args[1])
    if origin in (Union, UnionType, tuple):
        return all(_is_readable(arg) for arg in args if arg is not ...)
    return origin is Literal or is_dataclass(hint) or hint in _TAGS


def _default(field: dataclasses.Field[Any], hint: Any) -> Any:
    """Return a field's default if this default is a dataclass, else None.

    `view: {size: 64}` is read on top of this default, so that it changes only the size.
    """
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    return default if type(default) is hint and is_dataclass(default) else None


def _tag(node: yaml.Node) -> str:
    return node.tag.rpartition(":")[2]


def _got(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value) if _tag(node) == "str" else node.value or "nothing"
    return "a mapping" if isinstance(node, yaml.MappingNode) else f"a list of {len(node.value)}"


def _spell(hint: Any) -> str:
    """Describe a type in words, for messages."""
    args = get_args(hint)
    origin = get_origin(hint)
    if origin is Literal:
        return f"{'one of ' if len(args) > 1 else ''}{', '.join(map(repr, args))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_spell, args))
    if origin is tuple:
        return f"a list of {_spell(args[0])}" if args[1:] == (...,) else f"[{', '.join(map(_spell, args))}]"
    return _SPELLED.get(hint, "a mapping")
