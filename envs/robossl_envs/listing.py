"""The environments of this package, each with a line on what it is about, for `robossl list envs`."""

from __future__ import annotations

import pkgutil
import sys

import gymnasium


def environments() -> dict[str, str]:
    """Map the id of each environment to the first line of its task's module docstring, without the id."""
    ours = {name: spec for name, spec in gymnasium.registry.items() if spec.namespace == "robossl"}
    modules = {name: pkgutil.resolve_name(spec.kwargs["task"]).__module__ for name, spec in ours.items()}
    docs = {name: (sys.modules[module].__doc__ or "").strip() for name, module in modules.items()}
    return {name: doc.partition("\n")[0].removeprefix(f"{name}: ") for name, doc in docs.items()}
