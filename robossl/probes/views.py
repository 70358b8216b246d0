"""The views of a probe, rendered once for all encoders: uint8 files in a cache, each whole or not there.

A file is named by all that its pixels depend on: the frames, the factor's grid and code, the seed and the positions. It
is written aside and renamed, so a run that is killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8
from numpy import ndarray

from robossl.durable import full_disk_said, is_whole_array, written_aside
from robossl.errors import InputError
from robossl.probes import factors
from robossl.probes.factors import resolve_factor
from robossl.probes.factors.factor import Factor, Values
from robossl.probes.factors.warping import cut, disc, identities, square, warped
from robossl.probes.frames import Frames, Split
from robossl.probes.result import View
from robossl.probes.similarity import psnr, ssim

_CHUNK = 32  # frames rendered at once
_HEADER_BYTES = 128  # of a file in numpy's format
_SSIM_FRAMES = 64  # of a view, evenly chosen; all of them cost more than rendering
_BASES = ("plain", "disc", "resampled", "square")

Part = Literal["reference", "evaluation"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Job:
    """One file: a part of the frames under a factor.

    Args:
        factor: a name of FACTORS or "floor"; for clean views a base: "plain", "disc", "resampled" or "square".
        level: 1 to 5; 0 for clean views.
        draw: "clean"; "level": the strength of the level; "decode": strengths to be read back (see `Factor.draw`).
        part: of which frames.
    """

    factor: str
    level: int
    draw: Literal["clean", "level", "decode"]
    part: Part


class Views:
    """Rendered views of one split."""

    def __init__(self, frames: Frames, split: Split, folder: Path, *, seed: int = 0) -> None:
        """Name the cache folder; nothing is rendered yet."""
        self.frames, self.split, self.seed = frames, split, seed
        self.folder = folder / frames.digest[:16]

    def positions(self, job: Job) -> Int[ndarray, " n"]:
        """Which frames a job is about."""
        return self.split.reference if job.part == "reference" else self.split.evaluation

    def values(self, job: Job) -> Values:
        """What was done to each frame of a job."""
        at = self.positions(job)
        if job.draw == "clean":
            return np.zeros((len(at), 0))
        return resolve_factor(job.factor).draw(job.level, at, seed=self.seed, draw=job.draw)

    def pixels(self, job: Job) -> UInt8[ndarray, "n h w 3"]:
        """The frames of a job, mapped from its file, which is rendered if it is missing."""
        path = self.path(job)
        if not self._is_done(job):
            self._write(job, path, lambda _: None)
        found: UInt8[ndarray, "n h w 3"] = np.load(path, mmap_mode="r", allow_pickle=False)
        return found

    def view(self, job: Job) -> View:
        """The record of a job of draw "level", for the report."""
        self.pixels(job)
        factor = resolve_factor(job.factor)
        apart = json.loads(self.path(job).with_suffix(".json").read_text())
        strengths = factor.strengths(job.level)
        return View(
            factor=job.factor,
            family=factor.family,
            level=job.level,
            params={"unit": factor.unit, "values": list(strengths)},
            psnr=apart["psnr"],
            ssim=apart["ssim"],
        )

    def clean(self, job: Job) -> Job:
        """The job of the clean view that a job's view is compared with."""
        return Job(resolve_factor(job.factor).base, 0, "clean", job.part)

    def shape(self, job: Job) -> tuple[int, int, int, int]:
        """Of the pixels of a job."""
        height, width = self.frames.hw
        base = job.factor if job.draw == "clean" else resolve_factor(job.factor).base
        if base == "square":
            height = width = min(height, width)
        return len(self.positions(job)), height, width, 3

    def path(self, job: Job) -> Path:
        """The file of a job."""
        about: list[object] = [_code(job.factor), self.frames.digest, self.shape(job), job.factor, job.level, job.draw]
        if job.draw != "clean":
            factor = resolve_factor(job.factor)
            about += [self.seed, factor.clean, factor.sides, factor.num_draws, factor.scale, factor.base]
        digest = hashlib.sha256(json.dumps(about).encode())
        digest.update(self.positions(job).astype(np.int64).tobytes())
        return self.folder / f"{job.factor}-{job.level}-{job.draw}-{job.part}-{digest.hexdigest()[:12]}.npy"

    def num_bytes(self, jobs: Iterable[Job]) -> int:
        """Size of the files of some jobs, those that exist included."""
        return sum(_HEADER_BYTES + int(np.prod(self.shape(job))) for job in set(jobs))

    def num_missing(self, jobs: Iterable[Job]) -> int:
        """Frames that are still to be rendered for some jobs."""
        return sum(len(self.positions(job)) for job in set(jobs) if not self._is_done(job))

    def render(self, jobs: Sequence[Job], *, progress: Progress = lambda done, total: None) -> None:
        """Render what is missing.

        Args:
            jobs: in the order wanted; clean views before those that are compared with them.
            progress: told the frames rendered so far and in all.

        Raises:
            InputError: the cache cannot be written to.
            ResourceError: the disk is full; what is rendered is kept.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to {self.folder}: {error.strerror}") from None
        remove_leftovers(self.folder)
        todo = [job for job in dict.fromkeys(jobs) if not self._is_done(job)]
        total, done = sum(len(self.positions(job)) for job in todo), 0
        for job in todo:

            def tell(frames: int, before: int = done) -> None:
                progress(before + frames, total)

            if not self._is_done(job):
                self._write(job, self.path(job), tell)
            done += len(self.positions(job))

    def _is_done(self, job: Job) -> bool:
        """Whether a job's file is there in full, with the figures beside it."""
        path = self.path(job)
        return is_whole_array(path) and (job.draw != "level" or path.with_suffix(".json").is_file())

    def _write(self, job: Job, path: Path, tell: Callable[[int], None]) -> None:
        """Render a job into its file; the figures lie beside it before it appears."""
        compared = self.pixels(self.clean(job)) if job.draw == "level" else None
        at, values = self.positions(job), self.values(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_said(path.parent), written_aside(path) as aside:
            out = np.lib.format.open_memmap(aside, mode="w+", dtype=np.uint8, shape=self.shape(job))
            for start in range(0, len(at), _CHUNK):
                rows = slice(start, start + _CHUNK)
                out[rows] = self._rendered(job, at[rows], values[rows])
                tell(min(start + _CHUNK, len(at)))
            out.flush()
            if compared is not None:
                with written_aside(path.with_suffix(".json")) as beside:
                    beside.write_text(json.dumps(_apart(compared, out, plain=self.clean(job).factor == "plain")))

    def _rendered(self, job: Job, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
        if job.draw == "clean":
            return clean_view(self.frames, at, job.factor)
        return rendered(resolve_factor(job.factor), self.frames, at, values)


@cache
def _code(factor: str) -> str:
    """Digest of the code that renders a factor: a file that other code has made is not used."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in [*sorted(Path(factors.__path__[0]).glob("*.py")), *factors.FACTORS.source_files(factor)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def rendered(factor: Factor, frames: Frames, at: Int[ndarray, " b"], values: Values) -> UInt8[ndarray, "b h w 3"]:
    """The views of frames at some positions; a strength that is clean leaves a frame as its clean view shows it."""
    changed = values[:, 0] != factor.clean
    if not changed.any():
        return clean_view(frames, at, factor.base)
    views = factor.apply(frames, at[changed], values[changed])
    if factor.base != "plain":
        views = cut(views)
    out = np.empty((len(at), *views.shape[1:]), np.uint8)
    out[changed] = views
    if not changed.all():
        out[~changed] = clean_view(frames, at[~changed], factor.base)
    return out


def clean_view(frames: Frames, at: Int[ndarray, " b"], base: str) -> UInt8[ndarray, "b h w 3"]:
    """Frames as they are, cut and resampled like the views of factors with that base."""
    if base not in _BASES:
        raise InputError(f"a clean view is one of {', '.join(_BASES)}, got {base!r}")
    pixels = frames.clean(at)
    match base:
        case "plain":
            return pixels
        case "resampled":
            pixels = warped(pixels, identities(len(pixels)))
        case "square":
            pixels = square(pixels)
    return cut(pixels)


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files of processes that were killed."""
    for path in folder.glob("*.tmp"):
        pid = path.name.split(".")[-2]
        if not pid.isdigit():
            continue  # none of ours
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            path.unlink(missing_ok=True)
        except PermissionError:
            continue  # someone else's, and alive


def _apart(
    clean: UInt8[ndarray, "n h w 3"], view: UInt8[ndarray, "n h w 3"], *, plain: bool
) -> dict[str, float | None]:
    """Mean over the frames that differ, of what is inside the disc where there is one; None where no frame differs."""
    height, width = clean.shape[1:3]
    inside = np.ones((height, width), bool) if plain else disc((height, width))
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(clean), _CHUNK)]
    ratios = np.concatenate([psnr(clean[rows], view[rows], int(inside.sum())) for rows in chunks])
    moved = np.flatnonzero(np.isfinite(ratios))
    if not len(moved):
        return {"psnr": None, "ssim": None}
    some = moved[np.unique(np.linspace(0, len(moved) - 1, min(len(moved), _SSIM_FRAMES)).astype(int))]
    return {"psnr": float(ratios[moved].mean()), "ssim": float(ssim(clean[some], view[some], inside).mean())}
