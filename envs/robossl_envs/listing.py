"""The environments of this package and what each is about, for `robossl list envs`."""

from __future__ import annotations

import pkgutil
import sys

import gymnasium


def environments() -> dict[str, str]:
    """Return the first line of the docstring of each task's module, by the id of its environment."""
    ours = {name: spec for name, spec in gymnasium.registry.items() if spec.namespace == "robossl"}
    modules = {name: pkgutil.resolve_name(spec.kwargs["task"]).__module__ for name, spec in ours.items()}
    docs = {name: (sys.modules[module].__doc__ or "").strip() for name, module in modules.items()}
    return {name: doc.partition("\n")[0].removeprefix(f"{name}: ") for name, doc in docs.items()}
