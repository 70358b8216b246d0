"""Check the arguments of `robossl probe run` before anything is opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from robossl.common.atomic_io import check_folder
from robossl.errors import InputError
from robossl.probes.factors import FACTORS
from robossl.probes.profile import Profile


def choose_factors(asked: Sequence[str], task: Profile | None) -> tuple[str, ...]:
    """Return the factors to measure: those in `asked`; if it is empty, those of the task; without a task, all factors.

    Raises:
        InputError: a factor is unknown, or the task judges none of these factors.
    """
    for name in asked:
        FACTORS.resolve(name)
    if task is None:
        return tuple(dict.fromkeys(asked)) or tuple(FACTORS.usable())
    needed = [name for name, each in task.factors.items() if any(need != "-" for need in each.needs)]
    if not needed:
        raise InputError(f"the profile {task.name} has no need for any factor; give one a need")
    if asked and not set(asked) & set(needed):
        raise InputError(
            f"the profile {task.name} judges none of {', '.join(asked)}; it judges {', '.join(needed)}: name one of "
            "them too, or leave --profile out"
        )
    listed = [name for name in FACTORS if name in task.factors]
    return tuple(dict.fromkeys(asked or [*listed, *task.factors]))


def check_place(folder: Path, *, option: str) -> None:
    """Check that a folder can be made and written to; remove folders that were made for the check.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        check_folder(folder, option=option)
    finally:
        for each in made:
            with suppress(OSError):
                each.rmdir()


def check_free(folder: Path, *, encoder: str, profile: str | None) -> None:
    """Refuse to overwrite a report of another encoder or task, or a file that no probe wrote.

    Raises:
        InputError: the folder holds such a report or file.
    """
    report, page = folder / "report.json", folder / "report.html"
    if not report.is_file():
        if page.exists():
            raise InputError(f"{page} is there and no probe wrote it; choose another --out")
        return
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
        has = found["encoder"]["source"], found["task"] and found["task"]["profile"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{report} is there and is no report of a probe; choose another --out") from None
    if (str(has[0]).rstrip("/"), has[1]) != (encoder.rstrip("/"), profile):
        raise InputError(
            f"{folder} holds the report of {has[0]} for {has[1] or 'no profile'}; choose another --out, or remove it"
        )
