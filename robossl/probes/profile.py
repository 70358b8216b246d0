"""Task profiles: what a task needs of each factor, in TOML; ours lie in `profiles/`, users write their own.

```toml
schema = "robossl.profile/1"
name = "pose-estimation"
title = "Pose estimation and servoing"
about = "One or two sentences."
version = 1
calibrated = false                 # whether the thresholds were set from measured policy drops
labels = ["pose", "point"]         # in order of preference; leave the line out to judge without labels
[thresholds]                       # of `Thresholds`, where they differ
[factors.rotation]
need = "EQUI"                      # INV, EQUI, INFO or "-"; or five of them, one a level
max_level = 3                      # the highest level that is judged
```
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from robossl.errors import InputError
from robossl.names import suggest_name
from robossl.probes.factors import resolve_factor
from robossl.probes.result import Need

SCHEMA = "robossl.profile/1"
FOLDER = Path(__file__).parent / "profiles"
LEVELS = 5
MAX_LEVEL = 3
MIN_CLUSTERS = 20
_KEYS: dict[str, type] = {
    "schema": str,
    "name": str,
    "title": str,
    "about": str,
    "version": int,
    "calibrated": bool,
    "labels": list,
    "thresholds": dict,
    "factors": dict,
}
_OPTIONAL = ("labels", "thresholds")
_SPELLED = {str: "text", int: "a whole number", bool: "true or false", list: "a list", dict: "a table"}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The bounds of the decision rule; those of the reference profiles are not yet calibrated on policy drops."""

    inv_retention: float = 0.9
    inv_nis_w: float = 0.8
    inv_r1: float = 0.9
    inv_nis_w_risky: float = 0.5
    inv_r1_risky: float = 0.5
    equi_decoding: float = 0.3
    equi_share_of_pixels: float = 0.5
    equi_retention: float = 0.8
    over_invariant_nis_w: float = 0.8
    over_invariant_decoding: float = 0.2
    info_decoding: float = 0.5
    info_decoding_risky: float = 0.2
    readable: float = 0.15  # clean score above chance, below which a task is not readable
    min_clusters: int = MIN_CLUSTERS


@dataclass(frozen=True, slots=True)
class FactorNeed:
    """The need at each of the five levels, and up to which level it is judged."""

    needs: tuple[Need, Need, Need, Need, Need]
    max_level: int = MAX_LEVEL


@dataclass(frozen=True, slots=True)
class Profile:
    """One task."""

    name: str
    title: str
    about: str
    version: int
    calibrated: bool
    labels: tuple[str, ...]  # names of labels that the task reads, in order of preference; may be empty
    factors: Mapping[str, FactorNeed]
    thresholds: Thresholds
    sha256: str


def profile_names() -> list[str]:
    """Names of the profiles that come with the package."""
    return sorted(path.stem.replace("_", "-") for path in FOLDER.glob("*.toml"))


def load_profile(name_or_path: str | Path, *, factors: Collection[str]) -> Profile:
    """A profile of ours by name, or any TOML file.

    Args:
        name_or_path: `pose-estimation`, or a path that ends in .toml.
        factors: Names of all factors there are.

    Raises:
        InputError: no such profile, not TOML, an unknown or missing key, a value that is not allowed.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        names = profile_names()
        if str(name_or_path).replace("_", "-") not in names:
            known = suggest_name("profile", str(name_or_path), names)
            raise InputError(f"{known}, or pass a TOML file of your own (a name that ends in .toml)")
        path = FOLDER / f"{str(name_or_path).replace('-', '_')}.toml"
    try:
        data = path.read_bytes()
        content = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the profile {path}: {error.strerror}; pass a TOML file") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: this is not valid TOML: {error}") from error
    return _Reader(path).profile(content, factors, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path

    def profile(self, content: dict[str, Any], factors: Collection[str], sha256: str) -> Profile:
        if content.get("schema") != SCHEMA:
            raise self.error(f"schema is {content.get('schema')!r}; this version reads {SCHEMA!r}")
        self.known("key", content, _KEYS)
        for key, kind in _KEYS.items():
            if key not in content and key not in _OPTIONAL:
                raise self.error(f"{key} is missing; give {_SPELLED[kind]}")
            if type(content.get(key, kind())) is not kind:
                raise self.error(f"{key} must be {_SPELLED[kind]}, got {content[key]!r}")
        labels = content.get("labels", [])
        if not all(isinstance(label, str) for label in labels):
            raise self.error(f"labels must be names, got {labels!r}")
        if not content["factors"]:
            raise self.error("factors is empty; say what the task needs of at least one")
        self.known("factor", content["factors"], factors)
        return Profile(
            **{key: content[key] for key in ("name", "title", "about", "version", "calibrated")},
            labels=tuple(labels),
            factors={name: self.need(name, table) for name, table in content["factors"].items()},
            thresholds=self.thresholds(content.get("thresholds", {})),
            sha256=sha256,
        )

    def need(self, name: str, table: Any) -> FactorNeed:
        at = f"factors.{name}"
        if not isinstance(table, dict):
            raise self.error(f"{at} must be a table, got {table!r}")
        self.known(f"key in {at}", table, ("need", "max_level"))
        given = table.get("need")
        needs = given if isinstance(given, list) else [given] * LEVELS
        if len(needs) != LEVELS or not all(need in get_args(Need) for need in needs):
            allowed = ", ".join(get_args(Need))
            raise self.error(f"{at}.need must be one of {allowed}, or five of them, one a level; got {given!r}")
        max_level = table.get("max_level", MAX_LEVEL)
        if type(max_level) is not int or not 1 <= max_level <= LEVELS:
            raise self.error(f"{at}.max_level must be 1 to {LEVELS}, got {max_level!r}")
        last = min(max_level, resolve_factor(name).num_levels)
        if any(need != "-" for need in needs) and all(need == "-" for need in needs[:last]):
            raise self.error(
                f"{at} asks nothing of the strengths up to {last} that are judged, got {needs!r}; ask, or leave it out"
            )
        levels: Any = tuple(needs)
        return FactorNeed(levels, max_level)

    def thresholds(self, table: dict[str, Any]) -> Thresholds:
        kinds = {field.name: type(field.default) for field in fields(Thresholds)}
        self.known("key in thresholds", table, kinds)
        for name, value in table.items():
            most = 1 if kinds[name] is float else math.inf
            if type(value) not in {kinds[name], int} or not 0 <= value <= most:
                allowed = "a number in [0, 1]" if kinds[name] is float else "a whole number"
                raise self.error(f"thresholds.{name} must be {allowed}, got {value!r}")
        if table.get("min_clusters", MIN_CLUSTERS) < MIN_CLUSTERS:
            raise self.error(
                f"thresholds.min_clusters must be {MIN_CLUSTERS} or more, got {table['min_clusters']}; intervals over "
                "fewer are too narrow"
            )
        return Thresholds(**table)

    def known(self, what: str, given: Iterable[str], allowed: Collection[str]) -> None:
        for name in given:
            if name not in allowed:
                raise self.error(suggest_name(what, name, allowed))

    def error(self, message: str) -> InputError:
        return InputError(f"{self.path}: {message}")
