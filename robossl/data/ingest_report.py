"""Messages of an ingest: the plan with its time and disk space, and the commands that come next."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robossl.counts import format_count
from robossl.data.listed_sources import ListedSource
from robossl.data.progress import Progress
from robossl.data.sampler import thin_rows
from robossl.data.store import open_store
from robossl.data.worker import ShardJob
from robossl.errors import ResourceError

FRAMES_PER_S = 240  # of one worker, measured on 320x180 video
BYTES_PER_PIXEL = 0.3  # JPEG quality 90 of robot video, measured 0.29

# A recipe that trains on images and on videos, without labels or splits, and what it needs.
RECIPE = Path("configs/simsiam_resnet18_video.yaml")
RECIPE_VIEW, RECIPE_BATCH, RECIPE_FRAMES_PER_S = 64, 64, 5.0


def announce(
    progress: Progress, out: Path, listed: Sequence[ListedSource], jobs: Sequence[ShardJob], workers: int
) -> None:
    """Print what each source holds, what is skipped, and the estimated time and disk space."""
    for one in listed:
        num_new = sum(len(job.units) for job in jobs if job.source == one.entry.name)
        progress.say(
            f"{one.entry.name} ({one.entry.format}): {format_count(len(one.listing.units), 'episode')}, {num_new} new; "
            f"licence: {one.entry.licence}"
        )
        for line in one.listing.remarks:
            progress.say(f"{one.entry.name}: {line}")
        progress.problems(one.entry.name, one.listing.skipped)
        progress.problems(one.entry.name, one.listing.notes, verb="noted")
    if jobs:
        num_frames = sum(job.num_frames for job in jobs)
        need, free = _estimate_bytes(num_frames, jobs[0].short_side), shutil.disk_usage(out).free
        minutes = num_frames / FRAMES_PER_S / workers / 60
        progress.say(
            f"about {format_count(num_frames, 'frame')} to store at short side {jobs[0].short_side}: {minutes:.1f} min "
            f"with {format_count(workers, 'worker')}, {need / 2**20:.0f} MiB of {free / 2**20:.0f} MiB free in {out}"
        )


def check_disk(out: Path, num_frames: int, short_side: int) -> None:
    """Refuse to start if the frames will not fit on the disk.

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
    """Estimate the disk space of frames of aspect ratio 16:9."""
    return int(num_frames * (short_side * short_side * 16 / 9 * BYTES_PER_PIXEL + 64))


def next_step(path: Path) -> str:
    """Return the commands to run next; the recipe is named only if it is there and can train on this store."""
    store = open_store(path)
    num_rows = len(thin_rows(store, np.arange(store.num_frames), RECIPE_FRAMES_PER_S))
    commands = [["robossl", "info", str(path)]]
    if RECIPE.exists() and num_rows >= RECIPE_BATCH and store.frame_hw.min(axis=1).max() >= RECIPE_VIEW:
        commands.append(
            ["robossl", "pretrain", str(RECIPE), "--data.store", str(path), "--out", f"runs/{path.resolve().name}"]
        )
    return f"next: {'; '.join(map(shlex.join, commands))}"
