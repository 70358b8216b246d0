"""What a collection says: the plan first, a bar on a terminal or plain lines elsewhere, the result last."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 10.0  # between plain lines


class Progress:
    """Counts episodes that are done with, dropped ones too, and their frames."""

    def __init__(self, num_episodes: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._total, self._done, self.num_frames = num_episodes, 0, 0
        self._started = self._said = time.monotonic()
        self._bar: Bar | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("collect"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("episodes"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task("collect", total=num_episodes)

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
        """Since the first worker was started."""
        return time.monotonic() - self._started

    def extend(self) -> None:
        """Count on one more episode."""
        self._total += 1
        if self._bar:
            self._bar.update(self._task, total=self._total)

    def advance(self, num_frames: int) -> None:
        """Count one episode."""
        self._done += 1
        self.num_frames += num_frames
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            left_minutes = (self._total - self._done) * self.seconds / self._done / 60
            self.say(
                f"collect: {self._done} of {self._total} episodes, {self.num_frames / self.seconds:.0f} frames/s, "
                f"{left_minutes:.1f} min left"
            )

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(escape(line))
