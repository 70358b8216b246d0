"""Show the progress of long work: bars on a terminal, otherwise plain lines at intervals."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

LINE_SECONDS = 10.0  # minimum time between plain lines


class Progress:
    """Print lines, and one bar for each piece of work.

    Args:
        unit: what is counted, such as "frames".
        stderr: print to stderr instead of stdout.
        log: a file that gets every line too, with the time.
        quiet: print nothing on the terminal (set on every rank but the first).
        bar_width: width of a bar in characters.
    """

    def __init__(
        self,
        *,
        unit: str = "",
        stderr: bool = False,
        log: Path | None = None,
        quiet: bool = False,
        bar_width: int = 40,
    ) -> None:
        self._unit, self._log = unit, log.open("a") if log else None
        self._console = Console(stderr=stderr, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)
        name, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
        columns = (name, BarColumn(bar_width), MofNCompleteColumn(), note)
        self._bars = Bars(*columns, console=self._console, disable=quiet or not self._console.is_terminal)
        self._tasks: dict[str, TaskID] = {}
        self._marks: dict[str, list[tuple[int, float]]] = {}
        self._unended: set[str] = set()  # names of work that has a plain line, but no line at its end yet
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._log:
            self._log.close()

    @property
    def seconds(self) -> float:
        """Return the seconds since this object was made."""
        return time.monotonic() - self._started

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        if self._log:
            self._log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {line}\n")
            self._log.flush()
        self._console.print(line)

    def advance(self, what: str, more: int, total: int) -> None:
        """Note that `more` units of the work named `what` are done, and show its progress."""
        done = self._bars.tasks[self._tasks[what]].completed if what in self._tasks else 0
        self.show(what, int(done) + more, total)

    def show(
        self,
        what: str,
        done: int,
        total: int,
        *,
        note: str = "{unit} {left}",
        line: str = "{what}: {done} of {total} {unit}",
        line_now: bool = False,
    ) -> None:
        """Show how much of a piece of work is done.

        On a terminal, move the bar of the work. Otherwise print a plain line, at most once in 10 seconds. If a plain
        line was printed for a piece of work, print another line at the end of this work.

        Args:
            what: name of the work; the first call with a name adds a bar.
            done: units done.
            total: units in all.
            note: text to the right of the bar: a format string with the fields what, done, total, unit, left (h:mm:ss)
                and minutes_left.
            line: text of the plain line: a format string with the same fields.
            line_now: print the plain line even if 10 seconds have not passed.
        """
        seconds_left = self._seconds_left(what, done, total)
        fields = {
            "what": what,
            "done": done,
            "total": total,
            "unit": self._unit,
            "left": "-:--:--" if seconds_left is None else timedelta(seconds=round(seconds_left)),
            "minutes_left": (seconds_left or 0.0) / 60,
        }
        note = note.format(**fields).strip()
        if what in self._tasks:
            self._bars.update(self._tasks[what], completed=done, total=total, note=note)
        else:
            self._tasks[what] = self._bars.add_task(what, completed=done, total=total, note=note)
        is_due = line_now or time.monotonic() - self._last_line >= LINE_SECONDS
        if not self._console.is_terminal and (is_due or (done == total and what in self._unended)):
            self._last_line = time.monotonic()
            (self._unended.discard if done == total else self._unended.add)(what)
            self.say(line.format(**fields).strip())

    def _seconds_left(self, what: str, done: int, total: int) -> float | None:
        """Return the seconds left, estimated from the mean speed; None at the first call.

        From the third call on, the mean does not include the time before the second call, because work starts slowly.
        """
        marks, now = self._marks.setdefault(what, []), time.monotonic()
        since = marks[-1] if marks else None
        if len(marks) < 2:
            marks.append((done, now))
        return (total - done) * (now - since[1]) / max(1, done - since[0]) if since else None
