"""What an ingest says: the plan first, a bar on a terminal or plain lines elsewhere, the result last."""

from __future__ import annotations

from collections.abc import Sequence

from robossl.bar import Bar
from robossl.data.manifest import Manifest, Problem

MAX_PROBLEMS_SAID = 20


class Progress(Bar):
    """Counts stored frames; the total is an estimate until the end."""

    def __init__(self, num_frames: int) -> None:
        super().__init__("ingest", "frames", num_frames)
        self._total, self._done, self._num_problems = num_frames, 0, 0

    def advance(self, num_frames: int, source: str, problems: Sequence[Problem]) -> None:
        """Count one finished job and name what it could not read."""
        self._done += num_frames
        self.problems(source, problems)
        if self.show(self._done, self._total):
            per_s = self._done / self.seconds
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

    def result(self, manifest: Manifest) -> None:
        """Print what the store holds now."""
        self.say(
            f"done in {self.seconds:.0f} s: {manifest.num_episodes} episodes, {manifest.num_frames} frames, "
            f"{manifest.num_bytes / 2**20:.0f} MiB; dropped {manifest.duplicate_frames} repeated frames and "
            f"{manifest.duplicate_episodes} repeated episodes; skipped {manifest.num_skipped} files"
        )
