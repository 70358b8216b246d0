"""List the environments of this package for `robossl list envs`, each with one line about its task."""

from __future__ import annotations

import pkgutil
import sys
from typing import Any

import gymnasium


def environments() -> dict[str, str]:
    """Return {id of an environment: first line of the docstring of its task's module, without the id}."""
    ours = {name: spec for name, spec in gymnasium.registry.items() if spec.namespace == "robossl"}
    return {name: _about(spec.kwargs) for name, spec in ours.items()}


def _about(kwargs: dict[str, Any]) -> str:
    module = pkgutil.resolve_name(kwargs["task"]).__module__
    about = (sys.modules[module].__doc__ or "").strip().partition("\n")[0].partition(": ")[2]
    kinds = {"vary": "light, table and camera vary", "home": "the tool starts at its home"}
    more = [said for name, said in kinds.items() if kwargs.get(name)]
    return f"{'; '.join([about.removesuffix('.'), *more])}."
