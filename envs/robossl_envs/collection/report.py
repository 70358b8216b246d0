"""The messages of a collection: plan, progress and result."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from robossl.common.counts import format_count
from robossl.common.progress import Progress
from robossl_envs.collection.environment import EnvDescription
from robossl_envs.collection.settings import CollectionSettings

# These constants were measured on our environments, and serve to estimate time and disk space.
ENCODE_SECONDS_PER_PIXEL = 4e-8  # measured with one worker
BYTES_PER_PIXEL = 0.25


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """The size of a data set after a collection, and the number of failures."""

    num_episodes: int
    num_frames: int
    num_dropped: int  # episodes that were given up after too many failed attempts
    num_failures: int  # attempts of this run that crashed, hung or raised an error


class CollectionReport:
    """Prints the plan of a collection, its progress and its result."""

    def __init__(self, progress: Progress, out: Path) -> None:
        self.say = progress.say
        self._progress, self._out = progress, out
        self._num_episodes = self._num_frames = 0

    def plan(
        self, settings: CollectionSettings, description: EnvDescription, *, num_episodes: int, workers: int
    ) -> None:
        """Print what will be collected, and an estimate of the time and disk space."""
        if not num_episodes:
            self.say(f"{self._out} already holds every episode")
            return
        num_frames = num_episodes * description.max_steps
        pixels = description.height * description.width
        seconds = num_frames * (description.step_seconds + pixels * ENCODE_SECONDS_PER_PIXEL) / workers
        free = shutil.disk_usage(self._out).free
        self.say(
            f"{format_count(num_episodes, 'episode')} of {settings.env} by {settings.agent}, at most "
            f"{description.max_steps} steps each, {description.width}x{description.height} at "
            f"{description.frames_per_s} fps: up to {num_frames} frames, {seconds / 60:.1f} min with "
            f"{workers} workers, {num_frames * pixels * BYTES_PER_PIXEL / 2**20:.0f} MiB of "
            f"{free / 2**20:.0f} MiB free in {self._out}"
        )

    def advance(self, num_frames: int, *, total: int) -> None:
        """Count a finished episode and show the progress; `total` is the number of episodes to play."""
        self._num_episodes += 1
        self._num_frames += num_frames
        per_s = f"{self._num_frames / self._progress.seconds:.0f} frames/s"
        line = "collect: {done} of {total} episodes, " + per_s + ", {minutes_left:.1f} min left"
        self._progress.show("collect", self._num_episodes, total, line=line)

    def result(self, summary: CollectionSummary) -> None:
        """Print what was collected, what the data set holds now, and what failed."""
        self.say(
            f"done in {self._progress.seconds:.0f} s: {format_count(self._num_frames, 'new frame')} "
            f"({self._num_frames / self._progress.seconds:.0f} frames/s); {self._out} holds "
            f"{format_count(summary.num_episodes, 'episode')}, {format_count(summary.num_frames, 'frame')}; "
            f"{format_count(summary.num_failures, 'attempt')} failed, "
            f"{format_count(summary.num_dropped, 'episode')} dropped"
        )
