"""List the environments of this package for `robossl list envs`, each with one line about its task."""

from __future__ import annotations

import pkgutil
import sys

import gymnasium


def environments() -> dict[str, str]:
    """Return {id of an environment: first line of the docstring of its task's module, without the id}."""
    ours = {name: spec for name, spec in gymnasium.registry.items() if spec.namespace == "robossl"}
    modules = {name: pkgutil.resolve_name(spec.kwargs["task"]).__module__ for name, spec in ours.items()}
    docs = {name: (sys.modules[module].__doc__ or "").strip() for name, module in modules.items()}
    return {name: doc.partition("\n")[0].removeprefix(f"{name}: ") for name, doc in docs.items()}
