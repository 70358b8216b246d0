"""Run paths: what `robossl pretrain` was pointed at, a recipe or a run, and the folder that the run goes into."""

from __future__ import annotations

import shlex
from pathlib import Path

from robossl.errors import InputError

FILE = "config.yaml"
_MADE_BY_A_RUN = ("checkpoints", "encoder", "log.txt", "metrics.jsonl")  # beside its configuration


def resolve(path: Path, *, out: Path | None, resume: bool) -> tuple[Path, Path]:
    """The yaml to read and the run folder.

    Args:
        path: a recipe, a run folder, or its `config.yaml`.
        out: the run folder asked for; by default the run's own on resume, else `runs/NAME_OF_RECIPE`.
        resume: go on with the run in the folder.

    Raises:
        InputError: a folder that is no run's, or a run that is neither resumed nor given another folder.
    """
    if path.is_dir() and not (path / FILE).is_file():
        raise InputError(_no_run(path))
    yaml = path / FILE if path.is_dir() else path
    run = yaml.parent if yaml.name == FILE and is_run(yaml.parent) else None
    if run and not resume and out is None:
        words = ("robossl", "pretrain", str(run), "--resume"), ("robossl", "pretrain", str(yaml), "--out", "ANOTHER")
        go_on, anew = map(shlex.join, words)
        raise InputError(f"{run} is a run already; go on with it: {go_on}; or train the same anew: {anew}")
    if resume and out is None and (run or path.is_dir() or yaml.name == FILE):
        out = yaml.parent
    return yaml, out or Path("runs") / yaml.stem


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run that has begun."""
    return (folder / FILE).is_file() and any((folder / name).exists() for name in _MADE_BY_A_RUN)


def _no_run(folder: Path) -> str:
    above = next((parent for parent in folder.absolute().parents if is_run(parent)), None)
    if above:
        return f"{folder} is part of the run {above}; name the run: {shlex.join(['robossl', 'pretrain', str(above)])} --resume"
    if (folder / "checkpoints").is_dir():
        return f"{folder} has checkpoints but no {FILE}; put it back"
    return f"{folder} is no run folder: it has no {FILE}; name a yaml of configs/, or the folder of a run with --resume"
