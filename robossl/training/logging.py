"""Sinks: where a run writes its scalars. It always writes metrics.jsonl; TensorBoard and others are optional."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from robossl.errors import InputError, reason


class Sink(Protocol):
    """A destination for the scalars of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step."""

    def close(self) -> None:
        """Flush and close the sink."""


class JsonLines:
    """A file of JSON objects, one per line. Each line is flushed, so a killed run leaves at most one half line."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append the values of one step as a line."""
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class TensorBoard:
    """TensorBoard event files. A run that resumes at step `start` hides its earlier events from `start` on."""

    def __init__(self, folder: Path, *, start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=start or None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of one step."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Close the event file."""
        self.writer.close()


class Logger:
    """A sink that logs to wandb or trackio, which have the same functions: init, log, finish.

    Raises:
        InputError: the logger does not start, for example because the user is not logged in.
    """

    def __init__(self, module_name: str, *, run_name: str, config: dict[str, Any]) -> None:
        self.module = importlib.import_module(module_name)
        try:
            self.module.init(project="robossl", name=run_name, config=config)
        except Exception as error:  # each logger has its own types of errors
            raise InputError(
                f"train.sinks: {module_name} does not start ({reason(error)}); set it up or leave it out"
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of one step."""
        self.module.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self.module.finish()


def check_sinks(names: tuple[str, ...]) -> None:
    """Check before a run starts that the package of every sink can be imported.

    Raises:
        InputError: a package is missing or broken; the message says how to install it.
    """
    for name in names:
        try:
            importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
        except Exception as error:  # a broken package may raise anything
            raise InputError(
                f"train.sinks names {name}, which cannot be imported ({reason(error)}): pip install {name}, or leave "
                "it out of --train.sinks"
            ) from error


def open_sinks(folder: Path, names: tuple[str, ...], *, start: int, config: dict[str, Any]) -> list[Sink]:
    """Open metrics.jsonl and the sinks in `names`, for a run that starts at step `start`."""
    sinks: list[Sink] = [JsonLines(folder / "metrics.jsonl")]
    for name in names:
        if name == "tensorboard":
            sinks.append(TensorBoard(folder / "tensorboard", start=start))
        else:
            sinks.append(Logger(name, run_name=folder.name, config=config))
    return sinks


def describe_step(values: Mapping[str, float]) -> str:
    """Return the loss, the learning rate and the speed of a step as text, to be printed as part of a line."""
    return f"loss {values['loss']:.4f}  lr {values['lr']:.2e}  {values['samples_per_s']:.0f} samples/s"
