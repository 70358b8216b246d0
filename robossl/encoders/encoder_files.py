"""Encoder folders: read and write `encoder.safetensors` and its description `encoder.json`."""

from __future__ import annotations

import glob
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from robossl.common.atomic_io import share, sync
from robossl.encoders.weights import weights_digest
from robossl.errors import InputError, ResourceError, reason

SCHEMA = "robossl.encoder/1"


def write_folder(folder: Path, state: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Write weights and `encoder.json` into a temporary folder, then rename it. Readers never see half of an encoder.

    Raises:
        ResourceError: the disk is full or cannot be written to; an existing folder is left as it was.
    """
    aside, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        save_file(state, aside / "encoder.safetensors")
        share(aside / "encoder.safetensors")
        (aside / "encoder.json").write_text(json.dumps(about, indent=2) + "\n")
        for path in (*aside.iterdir(), aside):
            sync(path)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        aside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(aside, ignore_errors=True)
        raise ResourceError(f"could not write {folder} ({reason(error)}); make room and run again") from error
    # Remove the old folder, and leftovers of saves that were killed.
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.[0-9]*"):
        shutil.rmtree(left, ignore_errors=True)


def read_state(folder: Path, *, digest: str) -> dict[str, Tensor]:
    """Read the weights of an encoder folder.

    Raises:
        InputError: the weights cannot be read, or their digest differs from `digest`, the one in `encoder.json`.
    """
    try:
        state = load_file(folder / "encoder.safetensors")
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder}: cannot read encoder.safetensors ({reason(error)}); resume its run, which writes it again"
        ) from error
    if weights_digest(state) != digest:
        raise InputError(f"{folder}: encoder.safetensors is not what encoder.json describes (digest differs)")
    return state


def read_about(folder: Path) -> dict[str, Any]:
    """Read `encoder.json` and check its schema.

    Raises:
        InputError: the file is missing, damaged or incomplete, or has an unknown schema.
    """
    path = folder / "encoder.json"
    if not path.is_file():
        raise InputError(f"{folder} is not an encoder folder (no encoder.json); pass RUN/encoder of a run")
    try:
        about: dict[str, Any] = json.loads(path.read_text())
        got = about.get("schema")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"cannot read {path} ({reason(error)}); resume its run, which writes it again") from error
    if got != SCHEMA:
        raise InputError(f"{path} has schema {got!r}, this robossl reads {SCHEMA!r}; install the one that wrote it")
    if missing := {"config", "digest", "extra"} - about.keys():
        raise InputError(f"{path} has no {', '.join(sorted(missing))}; resume its run, which writes it again")
    return about


def read_input_hw(path: Path) -> tuple[int, int] | None:
    """Return the input size (height, width) in the `encoder.json` of a checkpoint; None if it has no `encoder.json`.

    Args:
        path: A run, an encoder folder, its `encoder.safetensors`, or a step in RUN/checkpoints.
    """
    place = path.resolve()
    step = place if place.is_dir() else place.parent
    folders = [place / "encoder", place] if place.is_dir() else []
    folders += [place.parent] if place.name == "encoder.safetensors" else []
    folders += [step.parent.parent / "encoder"] if step.parent.name == "checkpoints" else []
    for folder in folders:
        if (folder / "encoder.json").is_file():
            height, width = read_about(folder)["config"]["input_hw"]
            return height, width
    return None
