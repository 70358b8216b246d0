"""Where numbers go while a run trains: metrics.jsonl always, tensorboard and other sinks by choice, a progress line."""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
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


class Progress:
    """What a person watches: a bar on a terminal, a plain line now and then elsewhere; `log.txt` gets the lines."""

    def __init__(self, *, start: int, stop: int, log: Path | None, line_every_seconds: float = 10.0) -> None:
        self.stop, self.line_every_seconds, self.last_line = stop, line_every_seconds, 0.0
        self.since, self.is_warm = (start, time.monotonic()), False  # what the time left is estimated from
        self.log = log.open("a") if log else None
        self.bar = self.task = None
        if log and sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self.bar = Bar(
                TextColumn("pretrain"),
                BarColumn(bar_width=12),  # so that the figures fit into 80 columns
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
            )
            self.task = self.bar.add_task("", total=stop, completed=start)
            self.bar.start()

    def say(self, text: str) -> None:
        """A line that stays: on the terminal and in log.txt."""
        if self.log is None:
            return
        self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
        self.log.flush()
        if self.bar:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Where the run is."""
        left = f"{self._time_left(step)} left  " if step < self.stop else ""
        text = f"{left}loss {values['loss']:.4f}  lr {values['lr']:.2e}  {values['samples_per_s']:.0f} samples/s"
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=step, description=text)
        elif time.monotonic() - self.last_line > self.line_every_seconds or step == self.stop:
            self.last_line = time.monotonic()
            self.say(f"step {step}/{self.stop}  {text}")

    def _time_left(self, step: int) -> str:
        """Estimated time to the last step, at the mean speed; the slow start counts at first only."""
        first, began = self.since
        now = time.monotonic()
        seconds = round((self.stop - step) * (now - began) / max(1, step - first))
        if not self.is_warm:
            self.since, self.is_warm = (step, now), True
        return str(timedelta(seconds=seconds))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()
        if self.log:
            self.log.close()
