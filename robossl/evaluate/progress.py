"""What an evaluation says while it works, on stderr: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

LINE_SECONDS = 20.0  # between plain lines


class Progress:
    """One bar for each thing that is watched."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal)
        self._done: dict[str, int] = {}
        self._said = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        self._console.print(escape(line))

    def watch(self, what: str, done: int, total: int) -> None:
        """Count `done` more of `total`."""
        if what not in self._done:
            self._done[what] = 0
            self._bars.add_task(what, total=total)
        self._done[what] += done
        task = self._bars.task_ids[list(self._done).index(what)]
        self._bars.update(task, completed=self._done[what])
        if not self._console.is_terminal and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            self.say(f"{what}: {self._done[what]} of {total}")
