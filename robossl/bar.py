"""Bar: what long work says while it runs: a bar on a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0  # between plain lines


class Bar:
    """Counts `unit`s of `what`, as in "ingest: 300 frames"."""

    def __init__(self, what: str, unit: str, total: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn(unit), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(what, total=total)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """Print one line, above the bar."""
        self._console.print(escape(line))

    def show(self, done: int, total: int) -> bool:
        """Move the bar; True where there is none and a plain line is due."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total)
            return False
        is_due = time.monotonic() - self._said >= LINE_SECONDS
        if is_due:
            self._said = time.monotonic()
        return is_due
