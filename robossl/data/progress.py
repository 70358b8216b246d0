"""What an ingest says: the plan first, a bar on a terminal or plain lines elsewhere, the result last."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from robossl.data.manifest import Manifest, Problem

LINE_SECONDS = 10.0  # between plain lines
MAX_PROBLEMS_SAID = 20


class Progress:
    """Counts stored frames; the total is an estimate until the end."""

    def __init__(self, num_frames: int) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._total, self._done, self._num_problems = num_frames, 0, 0
        self._started = self._said = time.monotonic()
        self._bar: Bar | None = None
        if self._console.is_terminal:
            columns = (
                TextColumn("ingest"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("frames"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._console)
            self._task = self._bar.add_task("ingest", total=num_frames)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, num_frames: int, source: str, problems: Sequence[Problem]) -> None:
        """Count one finished job and name what it could not read."""
        self._done += num_frames
        self.problems(source, problems)
        if self._bar:
            self._bar.update(self._task, completed=self._done)
        elif time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            per_s = self._done / (self._said - self._started)
            left_minutes = (self._total - self._done) / per_s / 60 if per_s else 0.0
            self.say(
                f"ingest: {self._done} of about {self._total} frames, {per_s:.0f} frames/s, {left_minutes:.1f} min left"
            )

    def problems(self, source: str, problems: Sequence[Problem], verb: str = "skipped") -> None:
        """Name files that were left out or corrected, the first ones only; the manifest has all."""
        for problem in problems:
            self._num_problems += 1
            if self._num_problems <= MAX_PROBLEMS_SAID:
                self.say(f"{verb} {source}/{problem.path}: {problem.reason}")
            elif self._num_problems == MAX_PROBLEMS_SAID + 1:
                self.say("more of these are in manifest.json")

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._console.print(escape(line))

    def result(self, manifest: Manifest) -> None:
        """Print what the store holds now."""
        seconds = time.monotonic() - self._started
        self.say(
            f"done in {seconds:.0f} s: {manifest.num_episodes} episodes, {manifest.num_frames} frames, "
            f"{manifest.num_bytes / 2**20:.0f} MiB; dropped {manifest.duplicate_frames} repeated frames and "
            f"{manifest.duplicate_episodes} repeated episodes; skipped {manifest.num_skipped} files"
        )
