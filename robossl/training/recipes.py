"""Recipes: the configurations that come with the package, found by name."""

from __future__ import annotations

import difflib
from pathlib import Path

from robossl.common.suggest import suggest_name
from robossl.errors import InputError
from robossl.training.run_paths import is_run

# The folder of recipes in a wheel, and in a checkout of the repository.
_FOLDERS = (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")


def recipes() -> dict[str, Path]:
    """Return the file of every recipe by its name."""
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_config(source: Path) -> Path:
    """Return the file of a recipe if `source` is the recipe's name; otherwise return `source` itself.

    Raises:
        InputError: `source` is a bare name, but no recipe, file or folder; the message names the nearest recipes.
    """
    if source.is_file() or len(source.parts) != 1 or source.suffix or is_run(source):
        return source
    known = recipes()
    if source.name in known:
        return known[source.name]
    if source.exists():
        return source
    near = difflib.get_close_matches(source.name, known, n=3, cutoff=0.4) or ["simsiam_resnet18_video"]
    raise InputError(f"{suggest_name('recipe', source.name, near)}, another of configs/, a yaml file or a run folder")
