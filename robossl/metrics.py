"""Sinks for the scalars of a run: metrics.jsonl always, tensorboard and others by choice."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from robossl.errors import InputError, reason


class Sink(Protocol):
    """Takes scalars of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step."""

    def close(self) -> None:
        """Flush and release."""


class JsonLines:
    """One json object a line; each line is flushed whole, so a killed run leaves at most half a last line."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class TensorBoard:
    """Event files; on resume, events after the resumed step are purged from the picture."""

    def __init__(self, folder: Path, *, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=start or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class Logger:
    """wandb or trackio, whose public calls are the same: init, log, finish.

    Raises:
        InputError: it does not start, as without a login.
    """

    def __init__(self, module_name: str, *, run_name: str, config: dict[str, Any]) -> None:
        self.module = importlib.import_module(module_name)
        try:
            self.module.init(project="robossl", name=run_name, config=config)
        except Exception as error:  # each has its own
            raise InputError(
                f"train.sinks: {module_name} does not start ({reason(error)}); set it up or leave it out"
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log a step."""
        self.module.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.module.finish()


def check_sinks(names: tuple[str, ...]) -> None:
    """Check that every sink can be imported, before a run is begun.

    Raises:
        InputError: a package is missing or broken; its pip line is named.
    """
    for name in names:
        try:
            importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
        except Exception as error:  # a broken package raises what it likes
            raise InputError(
                f"train.sinks names {name}, which cannot be imported ({reason(error)}): pip install {name}, or leave "
                "it out of --train.sinks"
            ) from error


def open_sinks(folder: Path, names: tuple[str, ...], *, start: int, config: dict[str, Any]) -> list[Sink]:
    """The json lines, then each named sink."""
    sinks: list[Sink] = [JsonLines(folder / "metrics.jsonl")]
    for name in names:
        if name == "tensorboard":
            sinks.append(TensorBoard(folder / "tensorboard", start=start))
        else:
            sinks.append(Logger(name, run_name=folder.name, config=config))
    return sinks


def describe_step(values: Mapping[str, float]) -> str:
    """Return the loss, the learning rate and the speed as one piece of a line."""
    return f"loss {values['loss']:.4f}  lr {values['lr']:.2e}  {values['samples_per_s']:.0f} samples/s"
