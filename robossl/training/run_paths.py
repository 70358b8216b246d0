"""Paths of a run: tell a recipe from a run folder, and choose the folder that the run writes to."""

from __future__ import annotations

import shlex
from pathlib import Path

from robossl.errors import InputError

FILE = "config.yaml"
_MADE_BY_A_RUN = ("checkpoints", "encoder", "log.txt", "metrics.jsonl")


def resolve(path: Path, *, out: Path | None, resume: bool) -> tuple[Path, Path]:
    """Return the YAML file to read and the run folder.

    Args:
        path: A recipe, a run folder, or its `config.yaml`.
        out: The run folder; by default the run itself on resume, otherwise runs/NAME of the recipe.
        resume: Go on with the run in the folder.

    Raises:
        InputError: the folder is not a run, a run is given without `resume` and `out`, or there is no run to resume.
    """
    if resume and not path.exists() and path.suffix not in (".yaml", ".yml"):
        raise InputError(f"there is no run {path} to resume; name the folder that pretrain wrote")
    if path.is_dir():
        check_run(path)
    yaml = path / FILE if path.is_dir() else path
    own = yaml.parent if yaml.name == FILE else None
    if own and out is None and is_run(own):
        if resume:
            return yaml, own
        raise InputError(
            f"{own} is a run already; go on with it: {_command(own, '--resume')}; "
            f"or train the same anew: {_command(yaml, '--out', 'ANOTHER')}"
        )
    if own and out is None and resume:
        raise InputError(f"nothing to resume in {own}: no run has begun there; leave out --resume to start one")
    return yaml, out or Path("runs") / (yaml.absolute().parent.name if own else yaml.stem)


def check_run(folder: Path) -> None:
    """Check that a folder holds a run that has begun.

    Raises:
        InputError: the folder holds no such run.
    """
    if not is_run(folder):
        raise InputError(_no_run(folder))


def is_run(folder: Path) -> bool:
    """Return whether a folder holds a run that has begun."""
    return (folder / FILE).is_file() and any((folder / name).exists() for name in _MADE_BY_A_RUN)


def _no_run(folder: Path) -> str:
    above = next((parent for parent in folder.absolute().parents if is_run(parent)), None)
    if above:
        return f"{folder} is a part of the run {above}; name the run: {_command(above, '--resume')}"
    if (folder / FILE).is_file():
        return f"{folder} holds no run that has begun; name its {FILE} to start one"
    if (folder / "checkpoints").is_dir():
        return f"{folder} has checkpoints but no {FILE}; put it back"
    return f"{folder} is no run: it has no {FILE}; name a yaml of configs/, or with --resume the folder of a run"


def _command(*words: object) -> str:
    return shlex.join(["robossl", "pretrain", *map(str, words)])
