"""The state of a collection on disk: settings, dropped episodes, and finished episodes not yet in the data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from itertools import count, islice
from pathlib import Path
from typing import Any

from robossl.common.atomic_io import atomic_write
from robossl.errors import InputError
from robossl_envs.collection.part import is_whole, num_rows, part_of
from robossl_envs.collection.settings import CollectionSettings
from robossl_envs.lerobot_v3 import LeRobotWriter

VERSION = 1
FILE = Path("meta", "collection.json")
# Field of CollectionSettings -> its command-line option, if the names differ.
OPTIONS = {"frames_per_s": "fps", "modules": "module"}
FILE_FRAMES = 8192  # number of frames of a full file; the first files are smaller, see `Ledger.commit`
FILE_BYTES = 200 * 2**20  # a video file of this size is full; LeRobot has the same limit


class Ledger:
    """Adds finished episodes to the data set in the order of their numbers.

    A finished episode waits as a part (a video and a table in the folder `.parts`) until it is added.

    Raises:
        InputError: the folder holds other files or a collection with other settings, or its settings file is damaged.
    """

    def __init__(self, root: Path, settings: CollectionSettings) -> None:
        self._root, self._settings = root, settings
        self.parts = root / ".parts"
        self.dropped: dict[int, str] = {}
        if (root / FILE).exists():
            self._read()
        elif any(path.name != ".lock" for path in root.iterdir()):
            raise InputError(f"{root} is not empty and is not a collection; choose another --out")
        self.parts.mkdir(exist_ok=True)
        self._write()

    def open(self, writer: LeRobotWriter) -> None:
        """Prepare to add episodes; keep the complete parts (finished episodes) that a killed run left in `.parts`.

        All other files in `.parts` are deleted. Dropped episodes are played again, unless later episodes are already in
        the data set.
        """
        self._writer = writer
        last = max(islice(self._kept_numbers(), writer.num_episodes), default=-1)
        self.dropped = {number: reason for number, reason in self.dropped.items() if number < last}
        self._next = last + 1
        self._finished: dict[int, int] = {}
        for path in sorted(self.parts.iterdir()):
            number = int(path.stem) if path.stem.isdecimal() else -1
            part = part_of(self.parts, number)
            if number >= self._next and number not in self.dropped and is_whole(part):
                self._finished[number] = num_rows(part)
            else:
                path.unlink()
        self._write()

    def pending(self, num_episodes: int) -> list[int]:
        """Return the numbers of the episodes below `num_episodes` that have yet to be played."""
        return [k for k in range(num_episodes) if self.is_pending(k)]

    def gaps(self) -> list[int]:
        """Return the numbers of the unplayed episodes before the last finished episode."""
        return self.pending(max(self._finished, default=-1) + 1)

    def max_frames(self, last: int, max_steps: int) -> int:
        """Return the largest number of frames that the data set can have after the episodes up to number `last`."""
        num_left = sum(self.is_pending(number) for number in range(self._next, last + 1))
        return self._writer.num_frames + sum(self._finished.values()) + num_left * max_steps

    def next_pending(self, number: int) -> int:
        """Return the number of the next unplayed episode after episode `number`."""
        return next(k for k in count(number + 1) if self.is_pending(k))

    def is_pending(self, number: int) -> bool:
        """Return whether an episode is neither in the data set, nor finished, nor dropped."""
        return number >= self._next and number not in self._finished and number not in self.dropped

    def finish(self, number: int, num_frames: int) -> None:
        """Register a finished episode whose part (video and table) is on disk, then call `commit`."""
        self._finished[number] = num_frames
        self.commit()

    def drop(self, number: int, reason: str) -> None:
        """Leave an episode out of the data set. Each later episode moves up, so its index becomes one lower."""
        self.dropped[number] = reason
        self._write()
        self.commit()

    def commit(self, *, everything: bool = False) -> None:
        """Move finished episodes into the data set as soon as they fill a file; with `everything`, move all of them.

        A file is full when it has as many frames as all earlier files together, or `FILE_FRAMES` frames, or
        `FILE_BYTES` bytes of video. The first file holds one episode, which can be read at once. Later files grow, so
        there are few of them.
        """
        ready = self._ready()
        while ready:
            chosen = self._file_of(ready, everything)
            if not chosen:
                return
            parts = [part_of(self.parts, number) for number in chosen]
            self._writer.append(parts)
            for number, part in zip(chosen, parts, strict=True):
                del self._finished[number]
                part.table.unlink()
                part.video.unlink()
            ready = ready[len(chosen) :]
            self._next = chosen[-1] + 1

    def _ready(self) -> list[int]:
        """Return the finished episodes that come next in the data set; stop at the first unfinished episode."""
        found: list[int] = []
        for number in self._kept_numbers(self._next):
            if number not in self._finished:
                return found
            found.append(number)
        raise AssertionError("numbers never end")

    def _file_of(self, ready: list[int], everything: bool) -> list[int]:
        enough = min(FILE_FRAMES, max(1, self._writer.num_frames))
        num_frames = num_bytes = 0
        for place, number in enumerate(ready, start=1):
            num_frames += self._finished[number]
            num_bytes += part_of(self.parts, number).video.stat().st_size
            if num_frames >= enough or num_bytes >= FILE_BYTES:
                return ready[:place]
        return ready if everything else []

    def _kept_numbers(self, start: int = 0) -> Iterator[int]:
        return (number for number in count(start) if number not in self.dropped)

    def _read(self) -> None:
        try:
            kept: dict[str, Any] = json.loads((self._root / FILE).read_text(encoding="utf-8"))
            version, settings, dropped = kept["version"], kept["settings"], kept["dropped"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._root / FILE} is damaged ({error}); choose another --out") from None
        if version != VERSION:
            raise InputError(f"{self._root / FILE} has version {version}, supported is {VERSION}; choose another --out")
        now = json.loads(json.dumps(asdict(self._settings)))
        differing = [
            f"--{OPTIONS.get(field.name, field.name).replace('_', '-')} {_format_value(settings.get(field.name))}, "
            f"not {_format_value(now[field.name])}"
            for field in fields(self._settings)
            if settings.get(field.name) != now[field.name]
        ]
        if differing:
            raise InputError(
                f"{self._root} was collected with {'; '.join(differing)}; use the same settings, or another --out"
            )
        self.dropped = {int(number): str(reason) for number, reason in dropped.items()}

    def _write(self) -> None:
        (self._root / FILE).parent.mkdir(exist_ok=True)
        kept = {"version": VERSION, "settings": asdict(self._settings), "dropped": self.dropped}
        with atomic_write(self._root / FILE) as aside:
            aside.write_text(json.dumps(kept, indent=1), encoding="utf-8")


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "(none)"
    return "(default)" if value is None else str(value)
