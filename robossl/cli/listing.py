"""`robossl list`: list the names that a user can choose from (methods, backbones, recipes, ...), one per line."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from robossl.common.plugins import ENVIRONMENTS, Registry
from robossl.common.suggest import suggest_name
from robossl.data.sources import SOURCES
from robossl.errors import InputError
from robossl.evaluation import PROTOCOLS
from robossl.methods import METHODS
from robossl.probes.factors import FACTORS
from robossl.training.recipes import recipes

Kind = Literal["methods", "sources", "factors", "backbones", "protocols", "envs", "profiles", "recipes"]


class NameRow(NamedTuple):
    """A name that `robossl list` prints, with its title."""

    name: str
    title: str
    package: str = ""  # the installed plugin package that the name comes from; "" for robossl's own names


class NameTable(NamedTuple):
    """All names of one kind, such as methods."""

    rows: list[NameRow]
    problems: Sequence[str] = ()  # messages about plugins that cannot be used


def list_names(kind: str | None = None, pattern: str = "*", /) -> str:
    """List the names of one kind, such as methods, one per line. Without a kind, list the kinds.

    Args:
        kind: Kind of names to list: methods, sources, factors, backbones, protocols, envs, profiles or recipes.
        pattern: Show only matching names, as in `robossl list backbones 'vit_small*'`.

    Raises:
        InputError: the kind is unknown, or no name matches the pattern.
    """
    if kind is None:
        return "\n".join(f"robossl list {each:10} {_counted(each)}" for each in get_args(Kind))
    if kind not in get_args(Kind):
        raise InputError(suggest_name("kind of names", kind, get_args(Kind)))
    rows, problems = _table(cast(Kind, kind))
    shown = [row for row in rows if fnmatchcase(row.name, pattern)]
    if not shown and rows:
        raise InputError(f"none of the {len(rows)} {kind} match {pattern!r}; robossl list {kind} shows all")
    width = max((len(row.name) for row in shown), default=0)
    lines = [f"{name:{width}}  {title}{f'  [{package}]' if package else ''}".rstrip() for name, title, package in shown]
    return "\n".join([*lines, *problems])


def _counted(kind: Kind) -> str:
    # Do not count the backbones, because importing timm takes seconds.
    if kind == "backbones":
        return "timm's models; takes a pattern: robossl list backbones 'vit_small*'"
    return str(len(_REGISTRIES[kind] if kind in _REGISTRIES else _table(kind).rows))


def _table(kind: Kind) -> NameTable:
    return _of_registry(_REGISTRIES[kind]) if kind in _REGISTRIES else _OTHERS[kind]()


def _of_registry(registry: Registry) -> NameTable:
    """Return the names in a registry and their titles. For a plugin that cannot be used, the title says why."""
    rows = []
    for name in registry:
        try:
            rows.append(NameRow(name, _title(registry, name), registry.package(name)))
        except InputError as error:
            rows.append(NameRow(name, str(error), registry.package(name)))
    return NameTable(rows, registry.problems())


def _title(registry: Registry, name: str) -> str:
    """Return the title of a name.

    For one of robossl's own names, this is the first line of the docstring below the object's assignment, or else of
    its module's docstring; both are read without importing the module. For a plugin, it is the first line of the
    object's docstring. For a plugin's factor, it is the attribute `title`. If this attribute is only the factor's name,
    the title is the factor's family and unit.
    """
    if name not in registry.built_in:
        found = registry.resolve(name)
        if registry is not FACTORS:
            return _first_line(inspect.getdoc(found))
        return found.title if found.title != name else f"{found.family}, in {found.unit}"
    module, _, attribute = registry[name].partition(":")
    spec = find_spec(module)
    assert spec and spec.origin
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    return _first_line(_docstring_below(tree, attribute) or ast.get_docstring(tree))


def _docstring_below(tree: ast.Module, attribute: str) -> str | None:
    """Return the string below `attribute = ...` in a module; None if there is none."""
    for assigned, after in pairwise(tree.body):
        match assigned, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str() as text)):
                if name == attribute:
                    return text
    return None


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _backbones() -> NameTable:
    import timm

    from robossl.encoders.backbones import BACKBONES

    # Import the plugins, because this registers their backbones with timm.
    list(BACKBONES.usable())
    weights: dict[str, list[str]] = {name: [] for name in timm.list_models()}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        weights.setdefault(architecture, []).append(tag or "default")
    rows = [NameRow(n, f"weights: {', '.join(tags) or 'none'}", BACKBONES.package(n)) for n, tags in weights.items()]
    return NameTable(rows, BACKBONES.problems())


def _envs() -> NameTable:
    return NameTable([NameRow(name, title) for name, title in pkgutil.resolve_name(ENVIRONMENTS)().items()])


def _profiles() -> NameTable:
    folder = Path(__file__).parents[1] / "probes" / "profiles"
    profiles = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))]
    return NameTable([NameRow(each["name"], each["title"]) for each in profiles])


def _recipes() -> NameTable:
    texts = {name: path.read_text(encoding="utf-8") for name, path in recipes().items()}
    return NameTable([NameRow(name, _first_sentence(text)) for name, text in texts.items()])


def _first_sentence(text: str) -> str:
    """Return the first sentence of the comment that a YAML file begins with."""
    # The comment's sentences have one space after "#". Lines with more spaces are commands, so the sentence ends there.
    comment = [line.strip("# ") for line in takewhile(lambda line: re.match("# \\S", line), text.splitlines())]
    first, dot, _ = " ".join(comment).partition(". ")
    return first + dot.strip()


_REGISTRIES: dict[Kind, Registry] = {
    "methods": METHODS,
    "sources": SOURCES,
    "factors": FACTORS,
    "protocols": PROTOCOLS,
}
_OTHERS: dict[Kind, Callable[[], NameTable]] = {
    "backbones": _backbones,
    "envs": _envs,
    "profiles": _profiles,
    "recipes": _recipes,
}
