"""`robossl list`: what there is to choose from, one line each."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import tomllib
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from robossl.data.sources import SOURCES
from robossl.errors import InputError
from robossl.evaluate import PROTOCOLS
from robossl.methods import METHODS
from robossl.plugins import ENVIRONMENTS, Registry
from robossl.probes.factors import FACTORS

Kind = Literal["methods", "sources", "factors", "backbones", "protocols", "envs", "profiles", "recipes"]


class Row(NamedTuple):
    """One line of a list."""

    name: str
    title: str
    package: str = ""  # that brings it, if it is not ours


class Listing(NamedTuple):
    """All lines of one kind."""

    rows: list[Row]
    problems: Sequence[str] = ()  # names of installed packages that are not used, and why


def list_names(kind: Kind | None = None, pattern: str = "*", /) -> str:
    """List what there is to choose from, one line each; without a kind, what can be listed.

    Args:
        kind: Of what.
        pattern: Names to show, such as 'vit_small*' of backbones.

    Raises:
        InputError: no name matches the pattern.
    """
    if kind is None:
        return "\n".join(f"robossl list {each:10} {_counted(each)}" for each in get_args(Kind))
    rows, problems = _listing(kind)
    shown = [row for row in rows if fnmatchcase(row.name, pattern)]
    if not shown and rows:
        raise InputError(f"none of the {len(rows)} {kind} match {pattern!r}; robossl list {kind} shows all")
    width = max((len(row.name) for row in shown), default=0)
    lines = [f"{name:{width}}  {title}{f'  [{package}]' if package else ''}".rstrip() for name, title, package in shown]
    return "\n".join([*lines, *problems])


def _counted(kind: Kind) -> str:
    if kind == "backbones":  # importing timm takes seconds
        return "timm's models; takes a pattern: robossl list backbones 'vit_small*'"
    return str(len(_REGISTRIES[kind] if kind in _REGISTRIES else _listing(kind).rows))


def _listing(kind: Kind) -> Listing:
    return _of_registry(_REGISTRIES[kind]) if kind in _REGISTRIES else _OTHERS[kind]()


def _of_registry(registry: Registry) -> Listing:
    """The names of a registry; a plugin that cannot be used has the reason as its title."""
    rows = []
    for name in registry:
        try:
            rows.append(Row(name, _title(registry, name), registry.package(name)))
        except InputError as error:
            rows.append(Row(name, str(error), registry.package(name)))
    return Listing(rows, registry.problems())


def _title(registry: Registry, name: str) -> str:
    """The first line of the docstring of our module, which is not imported; a plugin's own title or docstring."""
    if name not in registry.built_in:
        found = registry.resolve(name)
        return str(found.title) if registry is FACTORS else _first_line(inspect.getdoc(found))
    spec = find_spec(registry[name].partition(":")[0])
    assert spec and spec.origin
    return _first_line(ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _backbones() -> Listing:
    import timm

    weights: dict[str, list[str]] = {name: [] for name in timm.list_models()}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        weights.setdefault(architecture, []).append(tag or "default")
    return Listing([Row(name, f"weights: {', '.join(tags) or 'none'}") for name, tags in weights.items()])


def _envs() -> Listing:
    return Listing([Row(name, title) for name, title in pkgutil.resolve_name(ENVIRONMENTS)().items()])


def _profiles() -> Listing:
    folder = Path(__file__).parent / "probes" / "profiles"
    profiles = [tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))]
    return Listing([Row(each["name"], each["title"]) for each in profiles])


def _recipes() -> Listing:
    """The yaml files of configs/ in the working folder, else of the checkout that this package is in."""
    here = Path("configs")
    folder = here if here.is_dir() else Path(__file__).parents[1] / "configs"
    firsts = {path: _first_line(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))}
    rows = [Row(str(path), first.removeprefix("# ")) for path, first in firsts.items()]
    return Listing(rows, [] if rows else ["no folder configs here; recipes come with the source of robossl"])


_REGISTRIES: dict[Kind, Registry] = {
    "methods": METHODS,
    "sources": SOURCES,
    "factors": FACTORS,
    "protocols": PROTOCOLS,
}
_OTHERS: dict[Kind, Callable[[], Listing]] = {
    "backbones": _backbones,
    "envs": _envs,
    "profiles": _profiles,
    "recipes": _recipes,
}
