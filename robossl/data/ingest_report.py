"""The messages of an ingest: plan, skipped files, progress, result, and the commands to run next."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robossl.common.counts import format_count
from robossl.common.progress import Progress
from robossl.data.listed_sources import ListedSource
from robossl.data.manifest import Manifest, Problem
from robossl.data.sampler import thin_rows
from robossl.data.store import open_store
from robossl.data.worker import ShardJob
from robossl.errors import ResourceError

MAX_PROBLEMS = 20  # maximum number of skipped or corrected files to print
MAX_ALIKE = 3  # maximum number of files with the same reason to print
FRAMES_PER_S = 240  # frames that one worker stores per second, measured on 320x180 video
BYTES_PER_PIXEL = 0.3  # size of a JPEG of quality 90; 0.29 was measured on robot video

# The recipe to suggest after an ingest. It trains on images and videos and needs no labels or splits.
# The other constants repeat settings of this recipe: side of a training image in pixels, batch size, frames per second.
RECIPE = "simsiam_resnet18_video"
RECIPE_VIEW, RECIPE_BATCH, RECIPE_FRAMES_PER_S = 64, 64, 5.0


class IngestReport:
    """Prints the plan of an ingest, what it skips, its progress and its result."""

    def __init__(self, progress: Progress, out: Path) -> None:
        self.say = progress.say
        self._progress, self._out = progress, out
        self._listed: set[str] = set()  # names of the sources of this ingest
        # Numbers of problems by reason: those that were printed, and all others.
        self._printed, self._kept_back = Counter[str](), Counter[str]()
        self._done_frames = 0

    def plan(self, listed: Sequence[ListedSource], jobs: Sequence[ShardJob], workers: int) -> None:
        """Print what each source holds, what is skipped, and the estimated time and disk space."""
        for one in listed:
            name, units = one.entry.name, format_count(len(one.listing.units), "episode")
            self._listed.add(name)
            num_new = sum(len(job.units) for job in jobs if job.source == name)
            self.say(f"{name} ({one.entry.format}): {units}, {num_new} new; licence: {one.entry.licence}")
            for line in one.listing.remarks:
                self.say(f"{name}: {line}")
            self.problems(name, one.listing.skipped)
            self.problems(name, one.listing.notes, verb="noted")
        if jobs:
            num_frames = sum(job.num_frames for job in jobs)
            need, free = _estimate_bytes(num_frames, jobs[0].short_side), shutil.disk_usage(self._out).free
            minutes = num_frames / FRAMES_PER_S / workers / 60
            self.say(
                f"about {format_count(num_frames, 'frame')} to store at short side {jobs[0].short_side}: {minutes:.1f} "
                f"min with {workers} workers, {need / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free in "
                f"{self._out}"
            )

    def problems(self, source: str, problems: Sequence[Problem], verb: str = "skipped") -> None:
        """Print skipped or corrected files: up to MAX_PROBLEMS in all, and up to MAX_ALIKE with the same reason."""
        for problem in problems:
            if self._printed.total() < MAX_PROBLEMS and self._printed[problem.reason] < MAX_ALIKE:
                self.say(f"{verb} {source}/{problem.path}: {problem.reason}")
                self._printed[problem.reason] += 1
            else:
                self._kept_back[problem.reason] += 1

    def other_problems(self) -> None:
        """Print how many skipped or corrected files were not printed."""
        for reason in self._printed & self._kept_back:
            self.say(f"... and {self._kept_back[reason]} more with the same reason: {reason}")
        num_others = sum(count for reason, count in self._kept_back.items() if not self._printed[reason])
        if num_others:
            self.say(f"... and {num_others} more with other reasons")

    def advance(self, num_frames: int, total: int) -> None:
        """Add the frames of a finished job, and show the progress towards `total` frames."""
        self._done_frames += num_frames
        per_s = f"{self._done_frames / self._progress.seconds:.0f} frames/s"
        line = "ingest: {done} of about {total} frames, " + per_s + ", {minutes_left:.1f} min left"
        self._progress.show("ingest", self._done_frames, total, line=line)

    def result(self, manifest: Manifest) -> None:
        """Print what the store holds now, and the commands to run next."""
        if self._kept_back:
            self.say("all skipped and corrected files are listed in manifest.json")
        is_added = not {source.name for source in manifest.sources} <= self._listed
        near = f"{format_count(manifest.thinned_frames, 'near-equal frame')}, " if manifest.thin else ""
        self.say(
            f"done in {self._progress.seconds:.0f} s: {'the store now has ' if is_added else ''}"
            f"{format_count(manifest.num_episodes, 'episode')}, "
            f"{format_count(manifest.num_frames, 'frame')}, {manifest.num_bytes / 2**20:.0f} MiB; dropped {near}"
            f"{format_count(manifest.duplicate_frames, 'repeated frame')} and "
            f"{format_count(manifest.duplicate_episodes, 'repeated episode')}; "
            f"skipped {format_count(manifest.num_skipped, 'file')}"
        )
        self.say(next_step(self._out))


def check_disk(out: Path, num_frames: int, short_side: int) -> None:
    """Check that the frames will fit on the disk.

    Raises:
        ResourceError: the estimated size exceeds the free space.
    """
    need, free = _estimate_bytes(num_frames, short_side), shutil.disk_usage(out).free
    if need > free:
        raise ResourceError(
            f"{out} needs about {need / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "free some space or use a smaller --short-side"
        )


def _estimate_bytes(num_frames: int, short_side: int) -> int:
    """Estimate the disk space of frames, assuming an aspect ratio of 16:9."""
    return int(num_frames * (short_side * short_side * 16 / 9 * BYTES_PER_PIXEL + 64))


def next_step(path: Path) -> str:
    """Return the commands to run next.

    The command for pretraining is among them only if the suggested recipe can train on this store.
    """
    store = open_store(path)
    num_rows = len(thin_rows(store, np.arange(store.num_frames), RECIPE_FRAMES_PER_S))
    commands = [["robossl", "info", str(path)]]
    if num_rows >= RECIPE_BATCH and store.frame_hw.min(axis=1).max() >= RECIPE_VIEW:
        commands.append(
            ["robossl", "pretrain", RECIPE, "--data.store", str(path), "--out", f"runs/{path.resolve().name}"]
        )
    return f"next: {'; '.join(map(shlex.join, commands))}"
